/** What the page knows: users and messages by id, merged from answers and pushes in any order. */

const MESSAGES_KEPT = 500;

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
    const all = this.conversation();
    for (const message of all.slice(0, all.length - MESSAGES_KEPT)) this.messages.delete(message.id);
  }

  #announce(kind) {
    this.dispatchEvent(new CustomEvent("change", { detail: kind }));
  }
}
