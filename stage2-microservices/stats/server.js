/** Stats: how many messages were posted in the last minute, and how many people are online. */

import { randomUUID } from "node:crypto";
import { createServer } from "node:http";

const FRESH = 1_000; // ms that an answer serves everybody: one computation a second, however many ask
const PATIENCE = 3_000; // ms for a computation: the load balancer gives our own answer 4.5 s
const MINUTE = 60; // s
const PAGE = 500; // messages or users that the application lists at once, at most
const LONGEST_HEADERS = 32_768; // bytes: more than the load balancer lets through
const METHODS = ["GET", "HEAD"];
const WELL_FORMED_ID = /^[A-Za-z0-9._-]{1,64}$/;

const config = {
  host: setting("HOST"),
  port: setting("PORT"),
  service: setting("SERVICE"),
  version: setting("VERSION"),
  instance: setting("INSTANCE"),
  application: setting("INTERNAL_URL"), // the load balancer's internal frontend: where services call each other
  hosts: [setting("HOST"), ...(process.env.ALLOWED_HOSTS ?? "localhost").split(",")], // the Host header may name these
};

const ROUTES = {
  "/healthz": () => ({ status: "ok", service: config.service, version: config.version, instance: config.instance }),
  "/api/stats": atMostOncePer(FRESH, stats),
};

/** A failure that is answered as it is; `headers` go with it. */
class Refusal extends Error {
  constructor(status, sentence, headers = {}) {
    super(sentence);
    Object.assign(this, { status, headers });
  }
}

async function stats(requestId) {
  const signal = AbortSignal.timeout(PATIENCE); // one for all: a full minute has many pages
  const get = (path) => ask(path, requestId, signal);
  // In production, count events instead of reading rows.
  const since = Math.floor(Date.now() / 1000) - MINUTE;
  const [messages, users] = await Promise.all([
    list(get, "messages", `/api/messages?updated_since=${since}&limit=${PAGE}`),
    list(get, "users", `/api/users?online=1&limit=${PAGE}`),
  ]);
  // Edited messages are listed too, by the time of the edit.
  const perMinute = messages.filter((message) => message.created_at > since).length;
  return { messages_per_minute: perMinute, people_online: users.length };
}

/** Return everything on this page and on those that follow it. */
async function list(get, kind, path) {
  const found = [];
  while (path) {
    const page = await get(path);
    found.push(...page[kind]);
    path = page._links.next;
  }
  return found;
}

/** Ask the application as everybody can: through its API. The request's id goes along. */
async function ask(path, requestId, signal) {
  try {
    const response = await fetch(config.application + path, { headers: { "X-Request-ID": requestId }, signal });
    if (!response.ok) throw new Error(`status ${response.status}`);
    return await response.json();
  } catch (error) {
    log("WARNING", requestId, `GET ${path}: ${error.cause?.message ?? error.message}`);
    throw new Refusal(503, "Nobody can be counted: the application does not answer. Please try again in a moment.");
  }
}

/** Have `compute` run once at a time, and once in `age` ms; who asks meanwhile gets the same promise. */
function atMostOncePer(age, compute) {
  let promise = null;
  const forgetLater = () => setTimeout(() => (promise = null), age).unref();
  return (...words) => (promise ??= compute(...words).finally(forgetLater));
}

function route(method, path) {
  if (!Object.hasOwn(ROUTES, path)) throw new Refusal(404, "There is nothing at this address.");
  if (METHODS.includes(method)) return ROUTES[path];
  throw new Refusal(405, "This address does not answer that method.", { Allow: METHODS.join(", ") });
}

/** Refuse requests of pages from elsewhere, as the Python services do: common/origins.py says why. */
function checkOrigin({ host = "", origin }) {
  const advice = "add a name with `./workshop up STAGE --host NAME`.";
  if (host && !config.hosts.includes(host.toLowerCase().replace(/:\d+$/, ""))) {
    throw new Refusal(421, `This server is not known by the name in the Host header. Use its address, or ${advice}`);
  }
  if (origin && origin.toLowerCase().replace(/^https?:\/\//, "") !== host.toLowerCase()) {
    throw new Refusal(403, `A page of another origin sent this request. Open the page at its own address, or ${advice}`);
  }
}

async function handle(request, response) {
  const started = performance.now();
  const sent = request.headers["x-request-id"] ?? "";
  const requestId = WELL_FORMED_ID.test(sent) ? sent : randomUUID();
  const path = request.url.split("?")[0];
  let [status, headers, body] = [200, {}, null];
  try {
    checkOrigin(request.headers);
    body = await route(request.method, path)(requestId);
  } catch (error) {
    const refusal = error instanceof Refusal;
    if (!refusal) log("ERROR", requestId, error.stack.replaceAll("\n", " "));
    [status, headers] = refusal ? [error.status, error.headers] : [500, {}];
    const sentence = refusal ? error.message : "Something went wrong on our side. Please try again.";
    body = { error: sentence, request_id: requestId };
  }
  const text = JSON.stringify(body);
  const described = { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(text), ...headers };
  response.writeHead(status, described).end(text); // Node leaves the body out for HEAD
  if (path === "/healthz") return; // several a second
  log("INFO", requestId, `${request.method} ${path} ${status} ${(performance.now() - started).toFixed(1)} ms`);
}

/** One line per event, to standard output, in the words of the Python services. */
function log(level, requestId, text) {
  const time = new Date().toLocaleString("sv"); // Swedes write 2024-12-31 23:59:59
  console.log(`${time} ${level} ${config.instance} ${requestId} stats: ${text}`);
}

function setting(name) {
  const value = process.env[name];
  if (!value) throw new Error(`The environment variable ${name} is missing.`);
  return value;
}

const server = createServer({ maxHeaderSize: LONGEST_HEADERS }, handle);
process.on("SIGTERM", () => server.close()); // what is being answered still is; then nothing keeps the process
server.listen(config.port, config.host);
