// The part of Markdown that models write, as elements: text of a model never becomes HTML.

import { h, note } from "./dom.js";

const INLINE = /(`+)([\s\S]*?)\1|\*\*([^*]+)\*\*|\*([^*\s][^*]*)\*|\[([^\]]+)\]\((https?:\/\/[^\s)]+)\)/g;

function inline(text) {
  const parts = [];
  let at = 0;
  for (const match of text.matchAll(INLINE)) {
    parts.push(text.slice(at, match.index));
    const [all, tick, code, bold, italic, name, url] = match;
    if (tick) parts.push(h("code", {}, code));
    else if (bold) parts.push(h("strong", {}, bold));
    else if (italic) parts.push(h("em", {}, italic));
    else parts.push(h("a", { href: url, rel: "noreferrer noopener", target: "_blank" }, name));
    at = match.index + all.length;
  }
  return [...parts, text.slice(at)];
}

function code(language, lines) {
  const text = lines.join("\n");
  const copy = h("button", { type: "button", class: "plain", onclick: () => navigator.clipboard.writeText(text).then(() => note("Copied.")) }, "Copy");
  return h("pre", { tabindex: "0" }, copy, h("code", { "data-language": language }, text));
}

export function markdown(text) {
  const out = [];
  const lines = text.split("\n");
  let paragraph = [];
  const close = () => {
    if (paragraph.length) out.push(h("p", {}, paragraph.flatMap((line, i) => [...(i ? [h("br")] : []), ...inline(line)])));
    paragraph = [];
  };
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i];
    const fence = line.match(/^\s*(```+|~~~+)\s*([\w+-]*)/);
    const head = line.match(/^(#{1,6})\s+(.*)/);
    const item = line.match(/^\s*(?:[-*+]|(\d+)[.)])\s+(.*)/);
    if (fence) {
      close();
      const end = lines.findIndex((l, j) => j > i && l.trim().startsWith(fence[1]));
      out.push(code(fence[2], lines.slice(i + 1, end < 0 ? undefined : end)));
      i = end < 0 ? lines.length : end;
    } else if (head) {
      close();
      out.push(h(`h${Math.min(head[1].length + 2, 6)}`, {}, inline(head[2])));
    } else if (item) {
      close();
      const tag = item[1] ? "ol" : "ul";
      const last = out.at(-1);
      const list = last?.localName === tag ? last : h(tag, item[1] ? { start: item[1] } : {});
      if (list !== last) out.push(list);
      list.append(h("li", {}, inline(item[2])));
    } else if (/^\s*>\s?/.test(line)) {
      close();
      out.push(h("blockquote", {}, inline(line.replace(/^\s*>\s?/, ""))));
    } else if (/^\s*\|.*\|\s*$/.test(line) && /^\s*\|[\s:|-]+\|\s*$/.test(lines[i + 1] || "")) {
      close();
      const cells = (row) => row.trim().slice(1, -1).split("|").map((c) => c.trim());
      const body = [];
      const heads = cells(line);
      for (i += 2; i < lines.length && /^\s*\|.*\|\s*$/.test(lines[i]); i++) body.push(cells(lines[i]));
      i--;
      out.push(h("div", { class: "scroll" }, h("table", {},
        h("tr", {}, heads.map((c) => h("th", {}, inline(c)))), body.map((row) => h("tr", {}, row.map((c) => h("td", {}, inline(c))))))));
    } else if (!line.trim()) close();
    else paragraph.push(line);
  }
  close();
  return out;
}
