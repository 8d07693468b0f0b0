/** The Socket.IO connection: pushes in, pings and messages out. */

import { ApiError } from "./api.js";
import { io } from "./lib/socket.io.js";

const PING_AFTER = 25_000; // ms; the server counts a connection for 60 s after a ping: one may be lost
const PING_CHECK = 5_000; // ms; so that there are never more than 30 s between two pings
const ACK_TIMEOUT = 5_000; // ms
const COLLECTIONS = { User: "users", Message: "messages" };

/** Emits "change" when the connection comes or goes, "upgrade" when its transport changes. */
export class Connection extends EventTarget {
  connected = false;
  since = performance.now(); // of the last change; unlike Date.now(), it never goes back
  #socket;
  #tokenShown = null;
  #pingedAt = -Infinity; // on the clock of performance.now()

  constructor(session, store, log) {
    super();
    Object.assign(this, { session, store, log });
  }

  start() {
    const socket = io({ reconnectionDelay: 250, reconnectionDelayMax: 3_000 });
    socket.on("connect", () => this.#changed(true));
    socket.on("disconnect", (reason) => {
      this.#changed(false);
      // The only case in which the library does not reconnect by itself.
      if (reason === "io server disconnect") socket.connect();
    });
    socket.on("updated_model", (push) => this.store.merge(COLLECTIONS[push.class], [push.model]));
    socket.on("expired_token", () => this.session.refused(this.#tokenShown));
    socket.io.on("open", () => {
      socket.io.engine.on("upgrade", () => this.dispatchEvent(new Event("upgrade")));
    });
    // Browsers slow down a hidden page's timers to one a minute, but not the server's heartbeats: use both.
    socket.io.on("ping", () => this.#pingIfDue());
    setInterval(() => this.#pingIfDue(), PING_CHECK);
    this.session.addEventListener("change", () => this.#showToken());
    this.#socket = socket;
  }

  /** "polling" or "websocket", or null while not connected. */
  get transport() {
    return this.connected ? this.#socket.io.engine.transport.name : null;
  }

  /** Post a message and return its id; throws ApiError, with status 0 if no acknowledgement came. */
  async post(source, key) {
    return (await this.#emit("post_message", { source }, this.session.token, key)).id;
  }

  #changed(connected) {
    this.connected = connected;
    this.since = performance.now();
    this.#tokenShown = null;
    this.dispatchEvent(new Event("change"));
    this.#showToken();
  }

  /** Tell the server who is behind this connection. */
  #showToken() {
    if (!this.connected) return;
    if (this.session.token) this.#ping();
    // Nobody any more: the server forgets who it was only with the connection.
    else if (this.#tokenShown) this.#socket.disconnect().connect();
  }

  #pingIfDue() {
    if (this.connected && this.session.token && performance.now() - this.#pingedAt >= PING_AFTER) this.#ping();
  }

  async #ping() {
    this.#pingedAt = performance.now();
    this.#tokenShown = this.session.token;
    try {
      await this.#emit("ping_user", this.session.token);
    } catch (error) {
      // Nothing to do: the log shows it, the session knows a refusal, and the next ping follows soon.
      if (!(error instanceof ApiError)) throw error;
    }
  }

  async #emit(event, ...args) {
    const token = this.session.token;
    const started = performance.now();
    let answer = { status: 0, error: "No acknowledgement came." };
    try {
      answer = await this.#socket.timeout(ACK_TIMEOUT).emitWithAck(event, ...args);
    } catch (error) {
      answer.error = error.message; // timed out, or disconnected meanwhile
    }
    this.log({
      method: "emit",
      path: event,
      status: answer.error ? answer.status || "none" : "ack",
      ok: !answer.error,
      ms: performance.now() - started,
      instance: null,
    });
    if (!answer.error) return answer;
    if (answer.status === 401) this.session.refused(token);
    throw new ApiError(answer.status, answer.error);
  }
}
