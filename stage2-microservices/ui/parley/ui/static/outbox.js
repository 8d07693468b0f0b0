/** Messages on their way: over the socket, else over HTTP, with one key each, so that none is stored twice. */

import { ApiError, idempotencyKey, pause } from "./api.js";

const FIRST_WAIT = 500; // ms between two attempts over HTTP; each wait is twice as long as the one before
const LONGEST_WAIT = 4_000; // ms: an instance that died is out of rotation or replaced within 5 s

/**
 * Emits "change" when an entry comes, goes, has to wait or fails.
 * `waiting` is the temporary error while an entry waits for the server, `error` is the one that ended its attempts.
 */
export class Outbox extends EventTarget {
  #entries = [];
  #queue = Promise.resolve();

  constructor(api, store, session, connection) {
    super();
    Object.assign(this, { api, store, session, connection });
  }

  start() {
    this.session.addEventListener("change", ({ detail: reason }) => {
      if (reason === "ended") this.#keep(() => false);
      if (reason !== "begun") return;
      this.#keep((entry) => entry.userId === this.session.userId);
      for (const entry of this.#entries) if (entry.error) this.retry(entry);
    });
  }

  /** Send a message; it stays here until the server has confirmed it, or the user discards it. */
  add(source) {
    const newest = Math.max(0, ...this.store.messages.keys());
    const entry = { source, newest, key: idempotencyKey(), userId: this.session.userId, waiting: null, error: null };
    this.#entries.push(entry);
    this.retry(entry);
  }

  retry(entry) {
    entry.error = null;
    this.#announce();
    this.#queue = this.#queue.then(() => this.#deliver(entry)); // one after the other keeps their order
  }

  discard(entry) {
    this.#keep((other) => other !== entry);
  }

  /** The entries to show: not those whose message was pushed before its acknowledgement came. */
  visible() {
    const seen = new Set();
    return this.#entries.filter((entry) => {
      const echo = [...this.store.messages.values()].find((message) => message.id > entry.newest
        && message.user_id === entry.userId && message.source === entry.source && !seen.has(message.id));
      if (echo) seen.add(echo.id);
      return !echo || entry.error;
    });
  }

  async #deliver(entry) {
    const asOf = performance.now();
    try {
      this.store.merge("messages", [await this.#send(entry)], asOf);
      this.discard(entry);
    } catch (error) {
      entry.waiting = null;
      entry.error = error;
      this.#announce();
      if (!(error instanceof ApiError)) reportError(error);
    }
  }

  async #send(entry) {
    this.#checkWanted(entry);
    if (this.connection.connected) {
      try {
        const id = await this.connection.post(entry.source, entry.key);
        return this.store.messages.get(id) ?? await this.api.get(`/api/messages/${id}`);
      } catch (error) {
        if (!error.temporary) throw error;
      }
    }
    for (let wait = FIRST_WAIT; ; wait = Math.min(2 * wait, LONGEST_WAIT)) {
      try {
        return await this.#sendOverHttp(entry);
      } catch (error) {
        // Sending again is safe: the server stores a message with this key once.
        if (!error.temporary) throw error;
        entry.waiting = error;
        this.#announce();
        await pause(wait);
      }
    }
  }

  #sendOverHttp(entry) {
    this.#checkWanted(entry);
    return this.api.post("/api/messages", { source: entry.source }, { "Idempotency-Key": entry.key });
  }

  /** Between two attempts the user may have discarded the message, or signed out. */
  #checkWanted(entry) {
    if (!this.#entries.includes(entry)) throw new ApiError(410, "The message was discarded.");
    if (entry.userId !== this.session.userId) throw new ApiError(401, "Sign in again to send it.");
  }

  #keep(condition) {
    this.#entries = this.#entries.filter(condition);
    this.#announce();
  }

  #announce() {
    this.dispatchEvent(new Event("change"));
  }
}
