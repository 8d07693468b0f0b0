/** The HTTP API: JSON in and out, one error class, every request in the log. */

const TIMEOUT = 10_000; // ms; the load balancer itself answers a stuck request after 5 s
const PATIENCE = 10_000; // ms for which a request is sent again: a class of sixty that registers at once takes 2 s
const RETRY_AFTER = 1_000; // ms, where the server names no time

/** A request that failed; `message` is a sentence for the user, `status` is 0 when no answer came. */
export class ApiError extends Error {
  /** `retryAfter` is in ms. */
  constructor(status, message, retryAfter = RETRY_AFTER) {
    super(message);
    Object.assign(this, { status, retryAfter });
  }

  /** Whether the same request may succeed a moment later. */
  get temporary() {
    return this.status === 0 || this.status >= 502;
  }
}

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Random, also on a page that is not served from a secure origin, where crypto.randomUUID is missing. */
export function idempotencyKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Send a request again while its failure is temporary, for PATIENCE at most. Only for requests that may be repeated. */
export async function persist(send, onRetry) {
  const deadline = performance.now() + PATIENCE;
  for (;;) {
    try {
      return await send();
    } catch (error) {
      if (!error.temporary || performance.now() + error.retryAfter > deadline) throw error;
      onRetry(error);
      await pause(error.retryAfter);
    }
  }
}

/** The value of a Basic Authorization header, in UTF-8. */
export function basic(nickname, password) {
  const bytes = new TextEncoder().encode(`${nickname}:${password}`);
  return `Basic ${btoa(String.fromCharCode(...bytes))}`;
}

export class Api {
  /** `log` is called with every request: {method, path, status, ok, ms, instance}. */
  constructor(session, log) {
    Object.assign(this, { session, log });
  }

  get(path) {
    return this.#request("GET", path);
  }

  post(path, body, headers) {
    return this.#request("POST", path, body, headers);
  }

  put(path, body) {
    return this.#request("PUT", path, body);
  }

  delete(path) {
    return this.#request("DELETE", path);
  }

  /** Send with the session's token, unless `headers` authorise in another way. */
  async #request(method, path, body, headers = {}) {
    const token = headers.Authorization ? null : this.session.token;
    const { response, text } = await this.#exchange(path, {
      method,
      headers: {
        ...(token && { Authorization: `Bearer ${token}` }),
        ...(body && { "Content-Type": "application/json" }),
        ...headers,
      },
      body: body && JSON.stringify(body),
    });
    const answer = response.headers.get("Content-Type")?.includes("json") && text ? JSON.parse(text) : null;
    if (response.ok) return answer;
    if (response.status === 401 && token) {
      this.session.refused(token);
      // Reading needs no token: without the refused one it works.
      if (method === "GET" && this.session.token !== token) return this.#request(method, path);
    }
    const sentence = answer?.error ?? `The server answered with error ${response.status}.`;
    const seconds = response.headers.get("Retry-After");
    throw new ApiError(response.status, sentence, seconds ? seconds * 1000 : undefined);
  }

  async #exchange(path, options) {
    const started = performance.now();
    let response;
    try {
      response = await fetch(path, { ...options, signal: AbortSignal.timeout(TIMEOUT) });
      return { response, text: await response.text() };
    } catch (error) {
      const late = error.name === "TimeoutError";
      throw new ApiError(0, late ? "The server took too long to answer." : "The server cannot be reached.");
    } finally {
      this.log({
        method: options.method,
        path,
        status: response?.status ?? "none",
        ok: response?.ok ?? false,
        ms: performance.now() - started,
        instance: response?.headers.get("X-Served-By") ?? null,
      });
    }
  }
}
