/** A line of numbers from an optional service: shown while it is there, and missed by nobody when it is not. */

import { byId } from "./dom.js";

const PATH = "/api/stats";
const EVERY = 30_000; // ms
const AFTER_A_FAILURE = 60_000; // ms; the browser writes each failed request into its console
const TIMEOUT = 10_000; // ms; the load balancer itself answers a stuck request after 5 s

/** Ask now, again and again, and when the page is looked at; `log` is called with what was answered. */
export function showStats({ log }) {
  let timer;

  async function ask() {
    const { ok, stats } = await request();
    byId("stats").hidden = !stats;
    if (stats) byId("stats").textContent = inWords(stats);
    clearTimeout(timer);
    timer = setTimeout(ask, ok ? EVERY : AFTER_A_FAILURE);
  }

  /** Needs no token: to see the numbers is not to be seen. */
  async function request() {
    const started = performance.now();
    try {
      const response = await fetch(PATH, { signal: AbortSignal.timeout(TIMEOUT) });
      const { status, ok } = response;
      const stats = status === 200 ? await response.json() : null;
      const instance = response.headers.get("X-Served-By");
      // 204: there is no such service, and so there is nothing to log.
      if (status !== 204) log({ method: "GET", path: PATH, status, ok, ms: performance.now() - started, instance });
      return { ok, stats };
    } catch {
      return { ok: false, stats: null }; // no answer, or half of one: if all else fails too, the banner says so
    }
  }

  document.addEventListener("visibilitychange", () => document.hidden || ask());
  ask();
}

function inWords({ messages_per_minute: messages, people_online: people }) {
  return `${messages} ${messages === 1 ? "message" : "messages"} a minute · ${people} online`;
}
