/** Load, catch up, and poll while there is no socket: pushes make the page quick, this makes it complete. */

import { ApiError } from "./api.js";

const OVERLAP = 5; // s: clocks differ a little, and the second read last may not have been over
const EVERY = 30_000; // ms, while pushes arrive
const SOON = 3_000; // ms, while they do not, and after an attempt that failed
const PRESENCE_GRACE = 5_000; // ms: a socket back within this was not missed by the server either
const IDS_PER_REQUEST = 100;
const USERS_PER_REQUEST = 500; // the most that the API lists on a page: a class fits on one

/** Wait for all of these, also when one fails: without the users, messages can be read; then throw why it failed. */
async function all(promises) {
  const failed = (await Promise.allSettled(promises)).find((result) => result.status === "rejected");
  if (failed) throw failed.reason;
}

/** Emits "change" after each attempt; `error` says why the last one failed, or is null. */
export class Sync extends EventTarget {
  error = null;
  // "users" or "messages" → when it began (a Date), while the server does not answer for it.
  missing = new Map();
  // The newest updated_at of an answer, never of a push: a push says nothing about those lost before it.
  #newest = { users: 0, messages: 0 };
  // The path of the next page of users, who changed longer ago; null after the last page, undefined before the first.
  olderUsers;
  #asked = new Set();
  #presentAt = -Infinity; // on the clock of performance.now()
  #running = false;
  #again = false;
  #timer;

  constructor(api, store, session, connection) {
    super();
    Object.assign(this, { api, store, session, connection });
  }

  start() {
    this.connection.addEventListener("change", () => this.run());
    this.session.addEventListener("change", () => this.run());
    this.store.addEventListener("change", () => this.#fetchUnknownAuthors());
    document.addEventListener("visibilitychange", () => document.hidden || this.run());
    this.run();
  }

  /** Bring the store up to date now, and again and again from now on. */
  async run() {
    this.#again = this.#running; // what is running may have read before the caller's reason arose
    if (this.#running) return;
    this.#running = true;
    clearTimeout(this.#timer);
    try {
      await (this.store.loaded ? this.#catchUp() : this.#load());
      this.error = null;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.error = error;
    } finally {
      this.#running = false;
      const pause = this.connection.connected && !this.error ? EVERY : SOON;
      this.#timer = setTimeout(() => this.run(), this.#again ? 0 : pause);
      this.dispatchEvent(new Event("change"));
    }
  }

  /** Read the newest messages afresh. */
  reload() {
    return this.#attempt(() => this.#pull("messages", "/api/messages"));
  }

  /** Read the next page of users. */
  readOlderUsers() {
    return this.#attempt(async () => {
      this.olderUsers = (await this.#pull("users", this.olderUsers))._links.next ?? null;
    });
  }

  async #attempt(action) {
    try {
      await action();
      this.error = null;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.error = error;
    }
    this.dispatchEvent(new Event("change"));
  }

  async #load() {
    const messages = this.#pullNewest("messages", "/api/messages").then(() => this.store.finishLoading());
    await all([this.#loadUsers(), messages]);
  }

  /** Read the users who changed last, and all who are online. The page reads the others when its user asks for them. */
  async #loadUsers() {
    const older = (await this.#pullNewest("users", `/api/users?limit=${USERS_PER_REQUEST}`))._links.next ?? null;
    let path = older && `/api/users?online=1&limit=${USERS_PER_REQUEST}`;
    while (path) path = (await this.#pull("users", path))._links.next;
    this.olderUsers = older;
  }

  async #catchUp() {
    const users = this.olderUsers === undefined ? this.#loadUsers() : this.#catchUpOn("users");
    await all([users, this.#catchUpOn("messages"), this.#sayPresent()]);
  }

  async #catchUpOn(kind) {
    let path = `/api/${kind}?updated_since=${Math.max(0, this.#newest[kind] - OVERLAP)}`;
    while (path) path = (await this.#pullNewest(kind, path))._links.next;
  }

  /** Read a page behind which nothing was missed: catching up begins at its newest change. */
  async #pullNewest(kind, path) {
    const page = await this.#pull(kind, path);
    this.#newest[kind] = Math.max(this.#newest[kind], ...page[kind].map((model) => model.updated_at));
    return page;
  }

  /** Read a page and return it. */
  async #pull(kind, path) {
    const asOf = performance.now();
    const page = await this.#get(kind, path);
    this.store.merge(kind, page[kind], asOf);
    return page;
  }

  /** Read, and note whether the server answers for this part. */
  async #get(kind, path) {
    try {
      const page = await this.api.get(path);
      this.missing.delete(kind);
      return page;
    } catch (error) {
      if (error.temporary && !this.missing.has(kind)) this.missing.set(kind, new Date());
      throw error;
    }
  }

  /** Without a socket there are no pings: then being here is said over HTTP. */
  async #sayPresent() {
    const { connected, since } = this.connection;
    const now = performance.now();
    if (connected || !this.session.token) return;
    if (now - since < PRESENCE_GRACE || now - this.#presentAt < EVERY) return;
    await this.api.put("/api/users/me");
    this.#presentAt = now;
  }

  /** Messages name their author by id only: ask for those that are not known, many at once, each once. */
  async #fetchUnknownAuthors() {
    if (!this.store.loaded) return;
    const authors = new Set([...this.store.messages.values()].map((message) => message.user_id));
    const ids = [...authors]
      .filter((id) => !this.store.users.has(id) && !this.#asked.has(id))
      .slice(0, IDS_PER_REQUEST);
    if (ids.length === 0) return;
    for (const id of ids) this.#asked.add(id);
    try {
      await this.#pull("users", `/api/users?ids=${ids}&limit=${IDS_PER_REQUEST}`);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      for (const id of ids) this.#asked.delete(id); // the store's next change asks again
    }
  }
}
