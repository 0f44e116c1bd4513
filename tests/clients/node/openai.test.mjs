// OpenAI's client for node.
import assert from 'node:assert/strict';
import { createReadStream } from 'node:fs';
import test from 'node:test';
import OpenAI from 'openai';
import { zodResponseFormat, zodTextFormat } from 'openai/helpers/zod';
import { z } from 'zod';
import { CHAT, EAR, EMBED, SOUND, V1 } from './where.mjs';

const client = new OpenAI({ baseURL: V1, apiKey: 'none', maxRetries: 0 });
const messages = [{ role: 'user', content: 'Hello' }];
const Fox = z.object({ name: z.string(), legs: z.number().int(), kind: z.enum(['red', 'grey']) });
const parameters = {
  type: 'object',
  properties: { city: { type: 'string' }, days: { type: 'integer' } },
  required: ['city', 'days'],
  additionalProperties: false,
};
const rain = { type: 'function', function: { name: 'rain', description: 'Whether it rains.', parameters, strict: true } };

test('chat, streamed and whole', async () => {
  const asked = { model: CHAT, messages, seed: 1, max_tokens: 60 };
  const whole = await client.chat.completions.create(asked);
  let text = '';
  for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) {
    text += chunk.choices[0]?.delta.content ?? '';
  }
  assert.ok(text.length > 0);
  assert.equal(text, whole.choices[0].message.content);
});

test('the stream helper', async () => {
  const stream = client.chat.completions.stream({ model: CHAT, messages, max_tokens: 40 });
  let seen = 0;
  stream.on('content', () => seen++);
  const final = await stream.finalChatCompletion();
  assert.ok(seen > 0 && final.choices[0].message.content);
});

test('a stream that is left', async () => {
  const stream = await client.chat.completions.create({ model: CHAT, messages, stream: true, max_tokens: 2000 });
  for await (const _ of stream) break;
  assert.ok(stream.controller.signal.aborted);
});

test('zodResponseFormat', async () => {
  const told = await client.chat.completions.parse({
    model: CHAT, messages, response_format: zodResponseFormat(Fox, 'fox'), max_tokens: 600, seed: 2,
  });
  assert.ok(Fox.parse(told.choices[0].message.parsed));
});

test('tools', async () => {
  const asked = { model: CHAT, messages, tools: [rain], parallel_tool_calls: false, seed: 3, max_tokens: 600 };
  const told = await client.chat.completions.create({ ...asked, tool_choice: 'required' });
  const [call] = told.choices[0].message.tool_calls;
  assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)), ['city', 'days']);
  const history = [...messages, told.choices[0].message, { role: 'tool', tool_call_id: call.id, content: 'no' }];
  assert.ok(await client.chat.completions.create({ ...asked, messages: history }));
});

test('runTools calls the function', async () => {
  const asked = [];
  const runner = client.chat.completions.runTools({
    model: CHAT, messages, seed: 1, max_tokens: 600, tool_choice: { type: 'function', function: { name: 'rain' } },
    tools: [{ type: 'function', function: { ...rain.function, parse: JSON.parse, function: (a) => (asked.push(a), 'no') } }],
  });
  await runner.done();
  assert.equal(typeof asked[0].city, 'string');
});

test('completions', async () => {
  const told = await client.completions.create({ model: CHAT, prompt: 'Once', max_tokens: 5, echo: true });
  assert.ok(told.choices[0].text.startsWith('Once'));
});

test('responses: whole, streamed, parsed, remembered', async () => {
  const told = await client.responses.create({ model: CHAT, input: 'Hello', max_output_tokens: 40 });
  assert.ok(told.output_text);
  const again = await client.responses.create({ model: CHAT, input: 'Go on', previous_response_id: told.id, max_output_tokens: 40 });
  assert.equal(again.previous_response_id, told.id);
  assert.equal((await client.responses.retrieve(told.id)).output_text, told.output_text);
  await client.responses.delete(told.id);
  const stream = client.responses.stream({ model: CHAT, input: 'Hello', max_output_tokens: 40 });
  const kinds = [];
  for await (const event of stream) kinds.push(event.type);
  assert.equal(kinds[0], 'response.created');
  assert.ok((await stream.finalResponse()).output_text);
  const parsed = await client.responses.parse({
    model: CHAT, input: 'A fox', text: { format: zodTextFormat(Fox, 'fox') }, max_output_tokens: 600,
  });
  assert.ok(Fox.parse(parsed.output_parsed));
});

test('embeddings', async () => {
  const told = await client.embeddings.create({ model: EMBED, input: ['a cat', 'a dog'] });
  const plain = await client.embeddings.create({ model: EMBED, input: 'a cat', encoding_format: 'float' });
  assert.ok(Math.abs(told.data[0].embedding[0] - plain.data[0].embedding[0]) < 1e-5);
});

test('transcription, whole and streamed', async () => {
  const told = await client.audio.transcriptions.create({ model: EAR, file: createReadStream(SOUND) });
  assert.equal(typeof told.text, 'string');
  let last;
  for await (const event of await client.audio.transcriptions.create({ model: EAR, file: createReadStream(SOUND), stream: true })) last = event;
  assert.equal(last.type, 'transcript.text.done');
});

test('models', async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.ok(names.includes(CHAT));
});

test('errors', async () => {
  await assert.rejects(client.chat.completions.create({ model: 'none', messages }), OpenAI.NotFoundError);
  await assert.rejects(client.chat.completions.create({ model: CHAT, messages, temperature: 9 }), OpenAI.BadRequestError);
});
