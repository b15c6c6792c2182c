// Talks to our own API under the address that the page came from, and knows whether the server can be reached.

export class ServerError extends Error {
  constructor(status, { code = "unknown", message = "", hint = "", ...more } = {}) {
    super(message);
    Object.assign(this, { status, code, hint, more });
  }
}

const root = new URL(".", document.baseURI);
const listeners = new Set();

export const server = {
  lost: false,
  url: (path) => new URL(path, root).href,
  get: (path) => ask("GET", path),
  send: (method, path, body) => ask(method, path, body),
  text: (method, path, body) => ask(method, path, body, (text) => text),
  onConnection(fn) {
    listeners.add(fn);
    return () => listeners.delete(fn);
  },
};

async function ask(method, path, body, read = parse) {
  const isForm = body instanceof FormData;
  const keepalive = method !== "GET" && body === undefined; // a cancel goes on when the page is left
  const headers = { Accept: "application/json", ...(body === undefined || isForm ? {} : { "Content-Type": "application/json" }) };
  let answer;
  try {
    answer = await fetch(server.url(path), { method, headers, keepalive, body: body === undefined ? undefined : isForm ? body : JSON.stringify(body) });
  } catch {
    setLost(true);
    throw new ServerError(0, { code: "connection_lost" });
  }
  setLost(false);
  const text = await answer.text();
  if (answer.ok) return read(text);
  if (answer.status === 401) location.reload(); // signed out meanwhile: the login page comes
  throw new ServerError(answer.status, parse(text)?.error ?? { message: text.slice(0, 200) });
}

// Whole numbers beyond 2^53 stay exact: as text.
export function parse(text) {
  if (!text) return null;
  try {
    return JSON.parse(text, (key, value, context) =>
      typeof value === "number" && !Number.isSafeInteger(value) && context && /^-?\d+$/.test(context.source) ? context.source : value);
  } catch {
    return null;
  }
}

function setLost(isLost) {
  if (server.lost === isLost) return;
  server.lost = isLost;
  listeners.forEach((fn) => fn(isLost));
}
