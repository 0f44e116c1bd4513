// What is served and what is in memory; load, unload, and each model's card.

import { ask, events, models as listed } from "./api.js";
import { bytes, count, failed, h, note } from "./dom.js";

export async function models(main) {
  const memory = h("div", {});
  const cards = h("div", { class: "models" });
  main.replaceChildren(h("div", { class: "panel" }, h("h1", {}, "Models"), memory, cards));
  const dialog = document.getElementById("ask");
  let timer = 0;
  const draw = async () => {
    if (!cards.isConnected && timer) return clearInterval(timer);
    const [served, loaded] = await Promise.all([listed(true), ask("/v1/brolly/ps")]);
    const held = Object.fromEntries(loaded.models.map((m) => [m.name, m]));
    gauge(memory, loaded);
    cards.replaceChildren(...served.filter((m) => !m.id.includes(":") || m.brolly).map((m) => card(m, held[m.id])));
  };
  await draw();
  timer = setInterval(() => draw().catch(() => {}), 3000);

  function gauge(area, loaded) {
    const most = loaded.memory || loaded.models.reduce((sum, m) => sum + m.bytes, 0) || 1;
    area.replaceChildren(h("p", { class: "soft" }, `${bytes(loaded.models.reduce((s, m) => s + (m.bytes || 0), 0))} of ${bytes(most)} for models`),
      h("div", { class: "memory", role: "img", "aria-label": "memory by model" }, loaded.models.filter((m) => m.bytes).map((m) => {
        const part = h("span", { title: `${m.name}: ${bytes(m.bytes || 0)}` }, m.name);
        part.style.width = `${Math.max(1, 100 * (m.bytes || 0) / most)}%`;
        return part;
      })), h("br"));
  }

  function card(model, held) {
    const told = model.brolly || {};
    const tags = [...(told.verbs || []).map((v) => h("span", {}, v)), held && h("span", { class: "on" }, told.remote ? `at ${told.host}` : held.state === "loading" ? "loading" : "in memory"), held?.pinned && h("span", { class: "on" }, "pinned")];
    const bar = h("progress", { max: 1, hidden: true });
    const act = told.remote ? "" : held ? h("button", { onclick: () => ask("/v1/brolly/unload", { body: { model: model.id } }).then(() => draw(), failed) }, "Unload")
      : h("button", { onclick: async () => {
        bar.hidden = false;
        try {
          for await (const event of events("/v1/brolly/load", { body: { model: model.id, stream: true } })) if (event.total) bar.value = event.completed / event.total;
          note(`${model.id} is loaded.`);
        } catch (error) { failed(error); }
        bar.hidden = true;
        draw().catch(failed);
      } }, "Load");
    const line = [told.kind, told.parameters?.total && `${count(told.parameters.total)} parameters`, told.context_length && `${count(told.context_length)} context`].filter(Boolean).join(" · ");
    return h("article", { class: "card" }, h("h2", {}, model.id), h("div", { class: "soft" }, line), h("div", { class: "tags" }, tags),
      h("div", { class: "soft" }, [told.licence?.id && `licence ${told.licence.id}`, held?.bytes && bytes(held.bytes), held?.until && `until ${new Date(held.until * 1000).toLocaleTimeString()}`].filter(Boolean).join(" · ")),
      bar, h("div", { class: "row" }, act, h("button", { class: "plain", onclick: () => show(model) }, "Card")));
  }

  async function show(model) {
    const found = await ask("/v1/brolly/models").catch((error) => { failed(error); return null; });
    const whole = found?.models?.find((m) => m.name === model.id);
    if (!whole) return;
    const pre = h("pre", { tabindex: "0" }, h("code", {}, JSON.stringify(whole.card || whole, null, 1)));
    dialog.replaceChildren(h("h1", {}, model.id), whole.card?.sentence ? h("p", {}, whole.card.sentence) : "", pre,
      h("form", { method: "dialog", class: "row" }, h("button", { class: "main" }, "Close")));
    dialog.showModal();
  }
}
