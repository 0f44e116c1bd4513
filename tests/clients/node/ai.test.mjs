// Vercel's AI SDK by each of its providers that can be pointed at a server.
import assert from 'node:assert/strict';
import test from 'node:test';
import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { embedMany, generateObject, generateText, stepCountIs, streamObject, streamText, tool } from 'ai';
import { z } from 'zod';
import { CHAT, EMBED, V1 } from './where.mjs';

const compatible = createOpenAICompatible({ name: 'brolly', baseURL: V1, includeUsage: true, supportsStructuredOutputs: true });
const openai = createOpenAI({ baseURL: V1, apiKey: 'none' });
const anthropic = createAnthropic({ baseURL: V1, apiKey: 'none' });
const providers = {
  createOpenAICompatible: compatible(CHAT),
  'createOpenAI, chat': openai.chat(CHAT),
  'createOpenAI, responses': openai.responses(CHAT),
  createAnthropic: anthropic(CHAT),
};
const Fox = z.object({ name: z.string(), legs: z.number().int(), kind: z.enum(['red', 'grey']) });
const rain = tool({
  description: 'Whether it rains.',
  inputSchema: z.object({ city: z.string(), days: z.number().int() }),
  execute: async ({ city }) => `none in ${city}`,
});

for (const [name, model] of Object.entries(providers)) {
  const asked = { model, maxRetries: 0, maxOutputTokens: 1500 };

  test(`${name}: generateText`, async () => {
    const told = await generateText({ ...asked, system: 'Be short.', prompt: 'Hello' });
    assert.ok(told.text && told.usage.outputTokens > 0 && ['stop', 'length'].includes(told.finishReason));
  });

  test(`${name}: streamText`, async () => {
    const told = streamText({ ...asked, prompt: 'Hello', onError: ({ error }) => { throw error; } });
    let text = '';
    for await (const part of told.textStream) text += part;
    assert.ok(text && text === (await told.text));
    assert.ok((await told.usage).outputTokens > 0);
  });

  test(`${name}: generateObject`, async () => {
    assert.ok(Fox.parse((await generateObject({ ...asked, schema: Fox, prompt: 'A fox' })).object));
  });

  test(`${name}: streamObject`, async () => {
    const told = streamObject({ ...asked, schema: Fox, prompt: 'A fox', onError: ({ error }) => { throw error; } });
    let parts = 0;
    for await (const _ of told.partialObjectStream) parts++;
    assert.ok(parts > 0 && Fox.parse(await told.object));
  });

  test(`${name}: a tool is called, and its result goes back`, async () => {
    const told = await generateText({
      ...asked, tools: { rain }, prompt: 'Rain?', stopWhen: stepCountIs(2),
      prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber ? 'none' : 'required' }),
    });
    assert.equal(told.steps[0].toolCalls[0].toolName, 'rain');
    assert.match(told.steps[0].toolResults[0].output, /^none in/);
    assert.equal(told.steps.length, 2);
  });

  test(`${name}: a tool is called in a stream`, async () => {
    const told = streamText({ ...asked, tools: { rain }, toolChoice: { type: 'tool', toolName: 'rain' }, prompt: 'Rain?' });
    const kinds = new Set();
    for await (const part of told.fullStream) kinds.add(part.type);
    assert.ok(kinds.has('tool-input-delta') && kinds.has('tool-call') && kinds.has('tool-result'), [...kinds].join());
  });
}

test('createOpenAICompatible: embedMany', async () => {
  const told = await embedMany({ model: compatible.textEmbeddingModel(EMBED), values: ['a cat', 'a dog'], maxRetries: 0 });
  assert.equal(told.embeddings.length, 2);
});

test('createOpenAICompatible: a completion model', async () => {
  assert.ok((await generateText({ model: compatible.completionModel(CHAT), prompt: 'Once', maxOutputTokens: 40, maxRetries: 0 })).text);
});
