/** The service as a process of its own, against an application that these tests make up. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer, request } from "node:http";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";

const SERVER = fileURLToPath(new URL("../server.js", import.meta.url));

/** Stands for the application: each test can give it another `answer(url, answer(status, body))`. */
const application = {
  asked: [],
  async start() {
    this.server = createServer((incoming, response) => {
      this.asked.push({ url: incoming.url, id: incoming.headers["x-request-id"] });
      this.answer(new URL(incoming.url, "http://application"), (status, body) =>
        response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(body)),
      );
    });
    this.server.listen(0, "127.0.0.1");
    await once(this.server, "listening");
    this.url = `http://127.0.0.1:${this.server.address().port}`;
  },
};

/** Messages that were posted so many seconds ago. */
const posted = (...ages) => ages.map((age) => ({ created_at: Math.floor(Date.now() / 1000) - age }));

function answerWell(url, answer) {
  if (url.pathname === "/api/users") answerUsers(url, answer);
  else if (url.searchParams.has("cursor")) answer(200, { messages: posted(59, 30), _links: {} });
  // The last one was edited a moment ago: it is listed, and not counted.
  else answer(200, { messages: posted(0, 5, 7200), _links: { next: "/api/messages?cursor=x&limit=500" } });
}

function answerUsers(url, answer) {
  if (url.searchParams.has("cursor")) answer(200, { users: [{ id: 1 }], _links: {} });
  else answer(200, { users: [{ id: 2 }, { id: 3 }], _links: { next: "/api/users?online=1&cursor=x&limit=500" } });
}

const stats = { lines: [] };

function start(environment) {
  const child = spawn(process.execPath, [SERVER], { env: environment, stdio: ["ignore", "pipe", "pipe"] });
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text) => stats.lines.push(...text.trimEnd().split("\n")));
  }
  return child;
}

function send(method, path, headers = {}) {
  return new Promise((resolve, reject) => {
    const options = { method, path, headers, host: "127.0.0.1", port: stats.port, agent: false };
    const sent = request(options, async (answer) => {
      const text = (await answer.setEncoding("utf8").toArray()).join("");
      resolve({ status: answer.statusCode, headers: answer.headers, text, body: text && JSON.parse(text) });
    });
    sent.on("error", reject).end();
  });
}

async function until(condition) {
  const deadline = Date.now() + 5_000;
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, `not within 5 s: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const answers = () => send("GET", "/healthz").then(() => true, () => false);

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  return port;
}

before(() => application.start());

beforeEach(async () => {
  application.answer = answerWell;
  application.asked.length = 0;
  stats.lines.length = 0;
  stats.port = await freePort();
  stats.environment = {
    HOST: "127.0.0.1",
    PORT: stats.port,
    SERVICE: "stats",
    VERSION: "v7",
    INSTANCE: "stats_v7_test",
    INTERNAL_URL: application.url,
    HTTP_PROXY: "http://127.0.0.1:1", // has no business on loopback
  };
  stats.process = start(stats.environment);
  await until(answers);
});

afterEach(() => stats.process.kill("SIGKILL"));

after(() => {
  application.server.close();
  application.server.closeAllConnections();
});

test("the health check says who answers, asks nobody and is not logged", async () => {
  const answer = await send("GET", "/healthz");
  assert.equal(answer.status, 200);
  assert.deepEqual(answer.body, { status: "ok", service: "stats", version: "v7", instance: "stats_v7_test" });
  assert.deepEqual([application.asked, stats.lines], [[], []]);
});

test("messages of the last minute are counted over all pages, and so are the people online", async () => {
  const answer = await send("GET", "/api/stats?x=1", { "X-Request-ID": "from-the-balancer" });
  assert.equal(answer.status, 200);
  assert.deepEqual(answer.body, { messages_per_minute: 4, people_online: 3 });
  assert.deepEqual(new Set(application.asked.map(({ id }) => id)), new Set(["from-the-balancer"]));
  assert.ok(application.asked.some(({ url }) => url === "/api/users?online=1&limit=500"));
  await until(() => stats.lines.length);
  assert.equal(stats.lines.length, 1);
  const [day, time, ...line] = stats.lines[0].split(" ");
  assert.match(`${day} ${time}`, /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/);
  assert.match(line.join(" "), /^INFO stats_v7_test from-the-balancer stats: GET \/api\/stats 200 [\d.]+ ms$/);
});

test("whoever asks at the same time, or within a second, gets one computation's answer", async () => {
  const all = await Promise.all(Array.from({ length: 20 }, () => send("GET", "/api/stats")));
  all.push(await send("GET", "/api/stats"));
  assert.deepEqual(new Set(all.map(({ text }) => text)).size, 1);
  assert.equal(application.asked.length, 4); // two pages of messages, two of users
  application.answer = (url, answer) => answer(503, { error: "Away." });
  await until(async () => (await send("GET", "/api/stats")).status === 503); // when it is a second old
  assert.ok(application.asked.length <= 6);
  application.answer = answerWell;
  await until(async () => (await send("GET", "/api/stats")).status === 200); // it has not given up
});

const FAILURES = {
  "answers 503": (url, answer) => answer(503, { error: "Away." }),
  "answers nonsense": (url, answer) => answer(200, undefined),
  "says nothing": () => {},
};
for (const [what, answer] of Object.entries(FAILURES)) {
  test(`an application that ${what} is 503 in the shape of all errors, in time`, async () => {
    application.answer = answer;
    const started = Date.now();
    const answered = await send("GET", "/api/stats", { "X-Request-ID": "asked" });
    assert.ok(Date.now() - started < 4_500); // then the load balancer would answer instead
    assert.equal(answered.status, 503);
    assert.match(answered.body.error, /does not answer.*\.$/);
    assert.equal(answered.body.request_id, "asked");
  });
}

test("a page from elsewhere is refused, and told what to do", async () => {
  const foreign = [
    [421, { Host: "evil.example" }],
    [403, { Origin: "http://evil.example" }],
    [403, { Origin: "null" }],
  ];
  for (const [status, headers] of foreign) {
    const answer = await send("GET", "/api/stats", headers);
    assert.equal(answer.status, status);
    assert.match(answer.body.error, /`\.\/workshop up STAGE --host NAME`/);
  }
  assert.deepEqual(application.asked, []);
  assert.equal((await send("GET", "/api/stats", { Origin: `http://127.0.0.1:${stats.port}` })).status, 200);
});

test("other addresses are not found, other methods not allowed, and HEAD is GET without its body", async () => {
  for (const path of ["/", "/api/stats/", "/api/stats/x", "/constructor", "//"]) {
    const answer = await send("GET", path, { "X-Request-ID": "two words" });
    assert.equal(answer.status, 404, path);
    assert.match(answer.body.error, /\.$/);
    assert.match(answer.body.request_id, /^[0-9a-f-]{36}$/); // what it was sent is no id
  }
  for (const method of ["POST", "PUT", "DELETE", "OPTIONS"]) {
    const answer = await send(method, "/api/stats");
    assert.equal(answer.status, 405, method);
    assert.equal(answer.headers.allow, "GET, HEAD");
  }
  const head = await send("HEAD", "/api/stats");
  assert.deepEqual([head.status, head.text], [200, ""]);
  assert.equal(head.headers["content-type"], "application/json");
});

test("a setting that is missing is named", async () => {
  const { VERSION, ...others } = stats.environment;
  const child = start(others);
  const [status] = await once(child, "close");
  assert.equal(status, 1);
  assert.ok(stats.lines.some((line) => line.includes("VERSION is missing")));
});

test("SIGTERM lets what is being answered be answered, and ends", async () => {
  let go;
  const asked = new Promise((resolve) => (go = resolve));
  application.answer = (url, answer) => {
    stats.process.kill("SIGTERM");
    asked.then(() => answerWell(url, answer));
  };
  const answered = send("GET", "/api/stats");
  await until(() => answers().then((does) => !does)); // nobody new is let in
  go();
  assert.equal((await answered).status, 200);
  if (stats.process.exitCode === null) await once(stats.process, "exit");
  assert.equal(stats.process.exitCode, 0);
});
