/** Words: which words were used most in the newest messages. */

import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";

const PATIENCE = 3_000; // ms for the application's answer: the load balancer gives our own 4.5 s
const MESSAGES = 100; // the newest ones are looked at
const LISTED = 10; // words

const config = {
  port: setting("PORT"),
  service: setting("SERVICE"),
  version: setting("VERSION"),
  instance: setting("INSTANCE"),
  application: setting("INTERNAL_URL"), // the load balancer's internal frontend: where services call each other
  stopWords: setting("STOPWORDS"),
};

const ROUTES = {
  "/healthz": () => ({ status: "ok", service: config.service, version: config.version, instance: config.instance }),
  "/api/words": words,
};

async function words(requestId) {
  const { messages } = await ask(`/api/messages?limit=${MESSAGES}`, requestId);
  const counts = new Map();
  for (const { source } of messages) {
    for (const word of source.toLowerCase().match(/[a-z]+/g) ?? []) {
      if (!stopWords.has(word)) counts.set(word, (counts.get(word) ?? 0) + 1);
    }
  }
  const sorted = [...counts].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1));
  return { words: sorted.slice(0, LISTED).map(([word, count]) => ({ word, count })) };
}

/** Ask the application as everybody can: through its API. The request's id goes along. */
async function ask(path, requestId) {
  const headers = { "X-Request-ID": requestId };
  const response = await fetch(config.application + path, { headers, signal: AbortSignal.timeout(PATIENCE) });
  if (!response.ok) throw new Error(`GET ${path}: status ${response.status}`);
  return response.json();
}

async function handle(request, response) {
  const requestId = request.headers["x-request-id"] ?? randomUUID();
  const path = request.url.split("?")[0];
  let [status, body] = [404, { error: "There is nothing at this address.", request_id: requestId }];
  try {
    if (Object.hasOwn(ROUTES, path)) [status, body] = [200, await ROUTES[path](requestId)];
  } catch (error) {
    log("WARNING", requestId, error.cause?.message ?? error.message);
    [status, body] = [200, { words: [] }];
  }
  response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(body));
  if (path !== "/healthz") log("INFO", requestId, `${request.method} ${path} ${status}`); // that is several a second
}

/** One line per event, to standard output, in the words of the Python services. */
function log(level, requestId, text) {
  const time = new Date().toLocaleString("sv"); // Swedes write 2024-12-31 23:59:59
  console.log(`${time} ${level} ${config.instance} ${requestId} words: ${text}`);
}

function setting(name) {
  const value = process.env[name];
  if (!value) throw new Error(`The environment variable ${name} is missing.`);
  return value;
}

const stopWords = new Set(readFileSync(config.stopWords, "utf8").split(/\s+/)); // before we listen: who answers, can
const server = createServer(handle);
process.on("SIGTERM", () => server.close()); // what is being answered still is; then nothing keeps the process
server.listen(config.port, "127.0.0.1");
