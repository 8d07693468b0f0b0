/** Who is signed in: a token, kept over reloads and shared by the tabs of this browser. */

const KEY = "parley.token";

/** The claims inside a JWT, or null; read only: it is the server that checks the signature. */
function claimsOf(token) {
  try {
    const payload = token.split(".")[1];
    return JSON.parse(atob(payload.replaceAll("-", "+").replaceAll("_", "/")));
  } catch (error) {
    const malformed = [TypeError, SyntaxError, DOMException].some((kind) => error instanceof kind);
    if (!malformed) throw error;
    return null;
  }
}

/** Emits "change" with detail "begun", "ended" or "expired". */
export class Session extends EventTarget {
  #token;
  #claims;

  constructor() {
    super();
    this.#read(localStorage.getItem(KEY));
    addEventListener("storage", (event) => {
      if (event.key !== KEY) return;
      this.#read(event.newValue);
      this.#announce(this.#token ? "begun" : "ended");
    });
  }

  get token() {
    return this.#token;
  }

  get userId() {
    return this.#claims?.user_id ?? null;
  }

  begin(token) {
    localStorage.setItem(KEY, token);
    this.#read(token);
    this.#announce("begun");
  }

  end(reason = "ended") {
    localStorage.removeItem(KEY);
    this.#read(null);
    this.#announce(reason);
  }

  /** The server refused a token: the session has expired, unless a newer one has begun meanwhile. */
  refused(token) {
    if (token && token === this.#token) this.end("expired");
  }

  #read(token) {
    this.#claims = token ? claimsOf(token) : null;
    this.#token = this.#claims ? token : null;
  }

  #announce(reason) {
    this.dispatchEvent(new CustomEvent("change", { detail: reason }));
  }
}
