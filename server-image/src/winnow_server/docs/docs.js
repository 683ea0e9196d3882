// openapi.json as a page. Everything goes in as textContent; nothing comes from another host.

const byId = (id) => document.getElementById(id);

try {
  const response = await fetch("../openapi.json");
  if (!response.ok) throw new Error(`The server answered ${response.status}.`);
  render(await response.json());
} catch (error) {
  byId("error").hidden = false;
  byId("error").textContent = `The API's description cannot be read. ${error.message}`;
}

function render(api) {
  byId("title").textContent = `The API of ${api.info.title}`;
  byId("access").hidden = !api.components.securitySchemes;
  byId("groups").replaceChildren(...api.tags.map((tag) => group(tag.name, api)));
  byId("schemas").append(...Object.entries(api.components.schemas).map(([name, schema]) => object(name, schema)));
  byId("schemas").hidden = false;
}

function group(name, api) {
  const operations = Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.entries(methods)
      .filter(([, operation]) => operation.tags.includes(name))
      .map(([method, operation]) => endpoint(method.toUpperCase(), path, operation)),
  );
  return element("section", { className: "card" }, element("h2", { textContent: name }), ...operations);
}

function endpoint(method, path, operation) {
  const made = element("details", {}, element("summary", {},
    element("span", { className: "path", textContent: `${method} ${path}` }),
    element("span", { textContent: `  ${operation.summary}` }),
  ));
  if (operation.description) made.append(element("p", { textContent: operation.description }));
  if (operation.parameters) {
    const rows = operation.parameters.map((one) => {
      const schema = one.schema ?? one.content["application/json"].schema;
      return [`${one.name} (${one.in})`, kind(schema), schema.description];
    });
    made.append(element("h3", { textContent: "Parameters" }), table(["name", "type", "meaning"], rows));
  }
  if (operation.requestBody) made.append(element("h3", { textContent: "Request" }), contents(operation.requestBody.content));
  const rows = Object.entries(operation.responses).map(([status, one]) => [status, one.description, kinds(one.content)]);
  made.append(element("h3", { textContent: "Answers" }), table(["status", "when", "what"], rows));
  return made;
}

function contents(content) {
  return table(["media type", "what"], Object.entries(content).map(([type, one]) => [type, kind(one.schema)]));
}

function kinds(content) {
  return Object.values(content ?? {}).map((one) => kind(one.schema)).join(", or ");
}

function object(name, schema) {
  const made = element("details", { id: `schema-${name}` }, element("summary", {}, element("span", { className: "path", textContent: name })));
  if (schema.description) made.append(element("p", { textContent: schema.description }));
  const required = new Set(schema.required ?? []);
  const rows = Object.entries(schema.properties ?? {}).map(([field, one]) => [
    required.has(field) ? field : `${field} (optional)`,
    kind(one),
    [one.description, "default" in one && one.default !== null ? `Default: ${JSON.stringify(one.default)}.` : ""].join(" "),
  ]);
  made.append(rows.length ? table(["field", "type", "meaning"], rows) : element("p", { textContent: kind(schema) }));
  return made;
}

// A schema's type in words: string, list of numbers, 0 to 1.
function kind(schema) {
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.anyOf) return schema.anyOf.map(kind).join(" or ");
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (schema.type === "array") return `list of ${grouped(schema.items ? kind(schema.items) : "values")}`;
  if (schema.type === "object" && typeof schema.additionalProperties === "object") {
    return `object of ${grouped(kind(schema.additionalProperties))} by name`;
  }
  const bounds = [
    "minimum" in schema ? `from ${schema.minimum}` : "",
    "maximum" in schema ? `to ${schema.maximum}` : "",
    "maxLength" in schema ? `up to ${schema.maxLength} characters` : "",
  ].filter(Boolean);
  return [schema.type ?? "any value", ...bounds].join(" ");
}

// What is one of several, within a list or an object.
function grouped(words) {
  return words.includes(" or ") ? `(${words})` : words;
}

function table(names, rows) {
  const head = element("tr", {}, ...names.map((name) => element("th", { textContent: name, scope: "col" })));
  const body = rows.map((row) => element("tr", {}, ...row.map((cell) => element("td", { textContent: cell ?? "" }))));
  const made = element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
  return element("div", { className: "scroll", tabIndex: 0 }, made);
}

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}
