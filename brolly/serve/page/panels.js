// The other verbs, a panel each: write, embed, classify, transcribe, rerank.

import { ask, chooser, events, text as plain } from "./api.js";
import { dataUrl, drop, field, h, number, runs, save } from "./dom.js";

const lines = (area) => area.value.split("\n").map((l) => l.trim()).filter(Boolean);
const panel = (main, name, ...parts) => main.replaceChildren(h("div", { class: "panel" }, h("h1", {}, name), ...parts));
const meter = (name, share, told) => h("div", { class: "bar" }, h("span", {}, name), h("meter", { min: 0, max: 1, value: share, "aria-label": name }), h("span", { class: "soft" }, told));

export async function write(main) {
  const model = await chooser("generate");
  const prompt = h("textarea", { rows: 6 });
  prompt.value = "Once upon a time";
  const most = h("input", { type: "number", min: "1", value: "200" });
  const heat = h("input", { type: "number", min: "0", max: "2", step: "0.1", placeholder: "default" });
  const told = h("p", { class: "soft" });
  const go = runs("Go on", async (signal) => {
    const begun = performance.now();
    let n = 0;
    const body = { model: model.value, prompt: prompt.value, max_tokens: Number(most.value) || 200, stream: true, stream_options: { include_usage: true } };
    if (heat.value !== "") body.temperature = Number(heat.value);
    for await (const event of events("/v1/completions", { body, signal })) {
      n = event.usage?.completion_tokens || n;
      prompt.value += event.choices?.[0]?.text || "";
      prompt.scrollTop = prompt.scrollHeight;
      prompt.style.height = `${Math.min(prompt.scrollHeight + 2, innerHeight * 0.6)}px`;
    }
    told.textContent = `${n} tokens, ${(n / (performance.now() - begun) * 1000).toFixed(1)} a second`;
  });
  panel(main, "Write", h("div", { class: "row" }, field("Model", model), field("Tokens", most), field("Temperature", heat), go), field("Text, to be continued", prompt), told);
}

export async function embed(main) {
  const model = await chooser("embed");
  const texts = h("textarea", { rows: 6 });
  texts.value = "A lad mends his bike.\nThe boy repairs his bicycle.\nRain is expected tomorrow.";
  const images = [];
  const out = h("div", { class: "scroll" });
  const shown = h("div", { class: "row" });
  const area = h("div", {});
  area.append(drop(area, "image/*", true, async (given) => {
    for (const file of given) images.push({ name: file.name, url: await dataUrl(file) });
    shown.replaceChildren(...images.map((one, i) => h("button", { title: "Remove", onclick: (event) => { images.splice(i, 1); event.currentTarget.remove(); } }, h("img", { src: one.url, alt: one.name, height: 48 }))));
  }), shown);
  const go = runs("Compare", async (signal) => {
    const names = [...lines(texts), ...images.map((i) => i.name)];
    const input = [...lines(texts), ...images.map((i) => ({ type: "image_url", image_url: { url: i.url } }))];
    const { data, usage } = await ask("/v1/embeddings", { body: { model: model.value, input }, signal });
    const vectors = data.map((d) => d.embedding);
    const length = (v) => Math.hypot(...v) || 1;
    const near = vectors.map((a) => vectors.map((b) => a.reduce((sum, x, i) => sum + x * b[i], 0) / length(a) / length(b)));
    const cell = (value) => { const td = h("td", {}, value.toFixed(2)); td.style.background = `color-mix(in srgb, var(--bar) ${Math.max(0, Math.round(value * 90))}%, transparent)`; return td; };
    out.replaceChildren(h("p", { class: "soft" }, `Cosines of ${vectors[0]?.length || 0} numbers each; ${usage.prompt_tokens} tokens read.`),
      h("table", { class: "heat" }, names.map((name, i) => h("tr", {}, h("th", {}, name.slice(0, 60)), near[i].map(cell)))),
      h("button", { class: "plain", onclick: () => save("vectors.json", JSON.stringify({ inputs: names, vectors }), "application/json") }, "Save the vectors as JSON"));
  });
  panel(main, "Embed", h("div", { class: "row" }, field("Model", model, true), go), field("Texts, one a line", texts), h("p", { class: "soft" }, "Pictures, where the model sees:"), area, out);
}

export async function classify(main) {
  const model = await chooser("classify");
  const labels = h("input", { value: "cat, dog, truck, house, flower", size: 50 });
  const out = h("div", {});
  const area = h("div", {});
  const work = async (file) => {
    const url = await dataUrl(file);
    const box = h("div", { class: "card" }, h("img", { class: "thumb", src: url, alt: file.name }));
    out.prepend(box);
    try {
      const body = { model: model.value, input: url, labels: labels.value.split(",").map((l) => l.trim()).filter(Boolean) };
      if (!body.labels.length) delete body.labels;
      const { data } = await ask("/v1/classify", { body });
      const found = data[0].labels || data[0];
      box.append(...found.slice(0, 20).map((one) => meter(one.label, one.probability ?? one.score, `${(100 * (one.probability ?? one.score)).toFixed(1)} %`)));
    } catch (error) { box.append(h("p", { class: "bad" }, error.message)); }
  };
  area.append(drop(main, "image/*", true, (given) => given.filter((f) => f.type.startsWith("image/")).forEach(work)));
  panel(main, "Classify", h("div", { class: "row" }, field("Model", model), field("Labels, between commas (none: the model's own)", labels, true)), area, out);
}

export async function transcribe(main) {
  const model = await chooser("transcribe");
  const task = h("select", {}, h("option", { value: "transcriptions" }, "as it is said"), h("option", { value: "translations" }, "into English"));
  const language = h("input", { placeholder: "heard", size: 8 });
  const out = h("div", {});
  const area = h("div", {});
  const clock = (s) => `${Math.floor(s / 60)}:${(s % 60).toFixed(1).padStart(4, "0")}`;
  const work = async (file) => {
    const player = h("audio", { controls: true, src: URL.createObjectURL(file) });
    const box = h("div", { class: "card" }, h("h2", {}, file.name || "recording"), player, h("p", { class: "soft" }, "listening …"));
    out.prepend(box);
    const sent = (format) => {
      const form = new FormData();
      form.append("file", file, file.name || "recording.webm"); form.append("model", model.value); form.append("response_format", format);
      if (language.value) form.append("language", language.value);
      return form;
    };
    try {
      const told = await ask(`/v1/audio/${task.value}`, { form: sent("verbose_json") });
      box.lastChild.replaceWith(h("p", {}, told.text.trim() || "(nothing is said)"),
        h("table", {}, (told.segments || []).map((s) => h("tr", {}, h("td", {}, h("button", { class: "plain", onclick: () => { player.currentTime = s.start; player.play(); } }, clock(s.start))), h("td", {}, s.text)))),
        h("p", { class: "soft" }, `${told.language || ""}${told.duration ? `, ${Math.round(told.duration)} s` : ""}`),
        ...["srt", "vtt"].map((format) => h("button", { class: "plain", onclick: async () => save(`${file.name || "recording"}.${format}`, await plain(`/v1/audio/${task.value}`, { form: sent(format) })) }, `Save as ${format.toUpperCase()}`)));
    } catch (error) { box.lastChild.replaceWith(h("p", { class: "bad" }, error.message)); }
  };
  let recorder = null;
  const mic = h("button", { type: "button", disabled: !navigator.mediaDevices, onclick: async () => {
    if (recorder) return recorder.stop();
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true }).catch(() => null);
    if (!stream) return;
    const parts = [];
    recorder = new MediaRecorder(stream);
    recorder.ondataavailable = (event) => parts.push(event.data);
    recorder.onstop = () => { stream.getTracks().forEach((t) => t.stop()); mic.textContent = "Record"; const type = recorder.mimeType; recorder = null; work(new File(parts, "recording.webm", { type })); };
    recorder.start(); mic.textContent = "Stop";
  } }, "Record");
  area.append(drop(main, "audio/*,video/*", true, (given) => given.forEach(work)));
  panel(main, "Transcribe", h("div", { class: "row" }, field("Model", model), field("Write", task), field("Language", language), mic), area, out);
}

export async function rerank(main) {
  const model = await chooser("rerank");
  const query = h("input", { value: "Who wrote the first program?" });
  const documents = h("textarea", { rows: 8 });
  documents.value = "Ada Lovelace published an algorithm for the Analytical Engine in 1843.\nThe first bicycle had no pedals.\nGrace Hopper wrote an early compiler.";
  const out = h("div", {});
  const go = runs("Rank", async (signal) => {
    const given = lines(documents);
    const { results } = await ask("/v1/rerank", { body: { model: model.value, query: query.value, documents: given }, signal });
    const scores = results.map((r) => r.relevance_score);
    const low = Math.min(...scores, 0), high = Math.max(...scores, 1);
    out.replaceChildren(...results.map((r) => h("div", { class: "card" }, given[r.index], meter(`${number(r.index + 1)}.`, (r.relevance_score - low) / (high - low || 1), r.relevance_score.toFixed(3)))));
  });
  panel(main, "Rerank", h("div", { class: "row" }, field("Model", model), field("Question", query, true), go), field("Documents, one a line", documents), out);
}
