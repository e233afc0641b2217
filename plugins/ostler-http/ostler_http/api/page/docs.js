// Shows the OpenAPI document of this API. Texts are put in as text only, never as markup.
"use strict";

let documentShown = null;
let token = "";

const byId = (id) => document.getElementById(id);

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function headers(more = {}) {
  return token ? { Authorization: `Bearer ${token}`, ...more } : more;
}

function resolve(value) {
  if (!value || !value.$ref) return value || {};
  return value.$ref.slice(2).split("/").reduce((found, part) => found[part] || {}, documentShown);
}

function typeName(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(typeName).join(" | ");
  if (schema.allOf) return schema.allOf.map(typeName).join(" & ");
  if (schema.type === "array") return `list of ${typeName(schema.items || {})}`;
  const kind = [].concat(schema.type || "any").join(" | ");
  return schema.contentEncoding ? `${kind} (${schema.contentEncoding})` : kind;
}

function example(schema, depth = 0) {
  const found = resolve(schema);
  if ("default" in found) return found.default;
  if (found.enum) return found.enum[0];
  if (found.anyOf) return example(found.anyOf[0], depth);
  const kind = [].concat(found.type)[0];
  if (kind === "object") {
    const shown = {};
    for (const name of depth > 3 ? [] : found.required || []) shown[name] = example((found.properties || {})[name], depth + 1);
    return shown;
  }
  return { array: [], integer: 1, number: 1, boolean: false, string: "text" }[kind] ?? null;
}

function schemaTable(schema) {
  const found = resolve(schema);
  const rows = Object.entries(found.properties || {}).map(([name, each]) => {
    const required = (found.required || []).includes(name);
    const said = [each.description, "default" in each ? `default ${JSON.stringify(each.default)}` : ""].filter(Boolean).join("; ");
    return row(name, typeName(each), required, said);
  });
  return rows.length ? table(rows) : make("p", {}, typeName(schema));
}

function row(name, type, required, said) {
  return make("tr", {}, make("td", {}, make("code", {}, name), required ? " (required)" : ""), make("td", {}, type), make("td", {}, said || ""));
}

function table(rows) {
  const head = make("tr", {}, ...["name", "type", "description"].map((text) => make("th", { scope: "col" }, text)));
  return make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
}

function contentOf(part) {
  const [kind, media] = Object.entries((part && part.content) || {})[0] || ["", {}];
  return { kind, schema: media.schema };
}

function showOperation(path, verb, operation) {
  const about = make("span", { class: "about" }, operation.summary || "");
  const summary = make("summary", {}, make("span", { class: `verb ${verb}` }, verb.toUpperCase()), make("code", {}, path), about);
  const details = make("details", { id: operation.operationId, "data-words": `${verb} ${path} ${operation.summary}`.toLowerCase() }, summary);
  details.addEventListener("toggle", () => {
    if (!details.open) return;
    if (details.children.length === 1) details.append(operationBody(path, verb, operation));
    history.replaceState(null, "", `#${operation.operationId}`);
  });
  return details;
}

function operationBody(path, verb, operation) {
  const body = make("div", { class: "body" });
  if (operation.description) body.append(make("p", {}, operation.description));
  const parameters = (operation.parameters || []).map(resolve);
  if (parameters.length) {
    body.append(make("h3", {}, "Parameters"), table(parameters.map((each) => {
      const schema = each.schema || contentOf(each).schema || {};
      return row(`${each.name} (${each.in})`, typeName(schema), each.required, each.description || schema.description);
    })));
  }
  const asked = contentOf(operation.requestBody);
  if (asked.schema) body.append(make("h3", {}, "Arguments"), schemaTable(asked.schema));
  const [status, answer] = Object.entries(operation.responses)[0];
  const given = contentOf(answer);
  body.append(make("h3", {}, `Result (${status}${given.kind ? `, ${given.kind}` : ""})`));
  if (given.schema) body.append(schemaTable(given.schema));
  const others = Object.entries(operation.responses).slice(1).map(([code, each]) => `${code}: ${resolve(each).description}`);
  if (others.length) body.append(make("h3", {}, "Other responses"), make("ul", {}, ...others.map((text) => make("li", {}, text))));
  body.append(...tryOut(path, verb, parameters, asked.schema));
  return body;
}

let fieldCount = 0;

function field(label, value, area = false) {
  const id = `field-${(fieldCount += 1)}`;
  const input = make(area ? "textarea" : "input", { id, spellcheck: "false", autocomplete: "off" });
  input.value = value;
  return { input, parts: [make("label", { for: id }, label), input] };
}

function tryOut(path, verb, parameters, schema) {
  const url = field("Path and query", path.replace(/^\//, ""));
  const sent = schema ? field("Body", JSON.stringify(example(schema), null, 2), true) : null;
  const output = make("pre", { "aria-live": "polite" });
  const form = make("form", {}, ...url.parts, ...(sent ? sent.parts : []), make("button", {}, "Send"));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    output.textContent = "…";
    const more = sent ? { "Content-Type": "application/json" } : {};
    try {
      const answer = await fetch(url.input.value, { method: verb.toUpperCase(), headers: headers(more), body: sent ? sent.input.value : undefined });
      await showAnswer(answer, output);
    } catch (error) {
      output.textContent = `Not sent: ${error.message}`;
    }
  });
  return [make("h3", {}, "Try it"), form, output];
}

async function showAnswer(answer, output) {
  const kind = answer.headers.get("Content-Type") || "";
  output.textContent = `${answer.status} ${answer.statusText}\n`;
  if (kind.includes("json") && !kind.includes("ndjson")) {
    const text = await answer.text();
    output.textContent += text ? JSON.stringify(JSON.parse(text), null, 2) : "";
    return;
  }
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let part = await reader.read(); !part.done && output.textContent.length < 20000; part = await reader.read()) {
    output.textContent += part.value;
  }
  await reader.cancel();
}

function showDocument() {
  byId("title").textContent = `${documentShown.info.title} ${documentShown.info.version}`;
  const sections = new Map(documentShown.tags.map((tag) => [tag.name, make("section", {}, make("h2", {}, tag.name), make("p", {}, tag.description))]));
  for (const [path, verbs] of Object.entries(documentShown.paths)) {
    for (const [verb, operation] of Object.entries(verbs)) sections.get(operation.tags[0]).append(showOperation(path, verb, operation));
  }
  byId("paths").replaceChildren(...sections.values());
  applyFilter();
}

// An address such as docs#volume_create_volume opens that one.
function openLinked() {
  const linked = byId(decodeURIComponent(location.hash.slice(1)));
  if (linked instanceof HTMLDetailsElement) {
    linked.open = true;
    linked.scrollIntoView();
  }
}

function applyFilter() {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const section of byId("paths").children) {
    let shown = 0;
    for (const each of section.querySelectorAll("details")) {
      each.hidden = !words.every((word) => each.dataset.words.includes(word));
      shown += each.hidden ? 0 : 1;
    }
    section.hidden = !shown;
  }
}

async function load() {
  const message = byId("message");
  message.textContent = "Loading …";
  try {
    const answer = await fetch("openapi.json", { headers: headers() });
    const found = await answer.json();
    if (!answer.ok) {
      message.textContent = `${found.detail}; ${found.hint}`;
      return;
    }
    documentShown = found;
    message.textContent = "";
    showDocument();
    openLinked();
  } catch (error) {
    message.textContent = `The document could not be read: ${error.message}`;
  }
}

byId("access").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value.trim();
  load();
});
addEventListener("hashchange", openLinked);
byId("filter").addEventListener("input", applyFilter);
byId("download").addEventListener("click", (event) => {
  if (!documentShown) return;
  event.preventDefault();
  const file = new Blob([JSON.stringify(documentShown, null, 2)], { type: "application/json" });
  const link = make("a", { href: URL.createObjectURL(file), download: "openapi.json" });
  link.click();
  URL.revokeObjectURL(link.href);
});
load();
