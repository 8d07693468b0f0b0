/** What the page knows: users and messages by id, merged from answers and pushes in any order. */

const MESSAGES_KEPT = 500;
export const PROBES_KEPT = 2_000; // of the probe's own: it sends 24 a second, and must not drive out a conversation

/** Emits "change", with the kind of model as detail, after each merge that changed something. */
export class Store extends EventTarget {
  users = new Map();
  messages = new Map();
  loaded = false;
  #asOf = new WeakMap(); // model → when it was the truth, at the earliest

  /** Merge models that are at least as new as the moment `asOf`: for an answer, when its request was sent. */
  merge(kind, models, asOf = performance.now()) {
    const known = this[kind];
    let changed = false;
    for (const model of models) {
      const present = known.get(model.id);
      if (present && this.#overtaken(present, model, asOf)) continue;
      known.set(model.id, model);
      this.#asOf.set(model, asOf);
      changed = true;
    }
    if (kind === "messages" && known.size > MESSAGES_KEPT) this.#forgetOldest();
    if (changed) this.#announce(kind);
  }

  /** The first answers are in: an empty list now means that there is nothing. */
  finishLoading() {
    this.loaded = true;
    this.#announce("messages");
  }

  /** Whether a user is a load generator, `./workshop probe`, and nobody to chat with. */
  isProbe(userId) {
    return /^probe-[0-9a-f]{8}$/.test(this.users.get(userId)?.nickname ?? "");
  }

  /** The messages, oldest first. */
  conversation() {
    return [...this.messages.values()].sort((a, b) => a.created_at - b.created_at || a.id - b.id);
  }

  /** Whether what is known is newer: a push may overtake an answer, also within one second of updated_at. */
  #overtaken(present, model, asOf) {
    if (present.updated_at !== model.updated_at) return present.updated_at > model.updated_at;
    return this.#asOf.get(present) > asOf;
  }

  #forgetOldest() {
    const isProbes = (message) => this.isProbe(message.user_id);
    const all = this.conversation();
    const people = all.filter((message) => !isProbes(message)).slice(0, -MESSAGES_KEPT);
    const probes = all.filter(isProbes).slice(0, -PROBES_KEPT);
    for (const message of [...people, ...probes]) this.messages.delete(message.id);
  }

  #announce(kind) {
    this.dispatchEvent(new CustomEvent("change", { detail: kind }));
  }
}
