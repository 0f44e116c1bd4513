// What the server says: JSON, streams of events, and the models that can do a verb. Nothing leaves this server.

import { h } from "./dom.js";

const KEY = "brolly.key";
export const key = () => localStorage.getItem(KEY) || "";
export const setKey = (value) => (value ? localStorage.setItem(KEY, value) : localStorage.removeItem(KEY));

async function fetched(path, { body, form, signal, method } = {}) {
  const headers = key() ? { authorization: `Bearer ${key()}` } : {};
  if (body) headers["content-type"] = "application/json";
  const answer = await fetch(path, {
    method: method || (body || form ? "POST" : "GET"), headers, signal, body: body ? JSON.stringify(body) : form,
  }).catch((error) => { throw error.name === "AbortError" ? error : new Error("The server does not answer."); });
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    if (answer.status === 401) document.getElementById("key").click();
    throw new Error(said.error?.message || said.error || `${answer.status} ${answer.statusText}`);
  }
  return answer;
}

export const ask = async (path, options) => (await fetched(path, options)).json();
export const text = async (path, options) => (await fetched(path, options)).text();

export async function* events(path, options) {
  const reader = (await fetched(path, options)).body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    held += value || "";
    const blocks = held.split("\n\n");
    held = done ? "" : blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").filter((l) => l.startsWith("data:")).map((l) => l.slice(5).trimStart()).join("\n");
      if (!data || data === "[DONE]") continue;
      const event = JSON.parse(data);
      if (event.error) throw new Error(event.error.message || event.error);
      yield event;
    }
    if (done) return;
  }
}

let known = null;
export async function models(fresh = false) {
  if (!known || fresh) known = (await ask("/v1/models")).data;
  return known;
}

export const verbs = (model) => model.brolly?.verbs || [];

// A choice of the models that can do `verb`; remembers the last one.
export async function chooser(verb, changed = () => {}) {
  const select = h("select", { "aria-label": "Model", onchange: () => { localStorage.setItem(`brolly.model.${verb}`, select.value); changed(select.value); } });
  const able = (await models()).filter((m) => verbs(m).includes(verb));
  for (const model of able) select.append(h("option", { value: model.id }, model.id));
  if (!able.length) select.append(h("option", { value: "", disabled: true }, `no model here can ${verb}`));
  const last = localStorage.getItem(`brolly.model.${verb}`);
  if (able.some((m) => m.id === last)) select.value = last;
  return select;
}
