/** Edit one's own message in its place. */

import { ApiError } from "./api.js";
import { clone, submitOnEnter } from "./dom.js";

/** Open an editor in a message's row; `closed` is called when it has gone. */
export function edit({ row, message, api, store, closed }) {
  if (row.querySelector(".editor")) return;
  const form = clone("editor-template");
  const { source, cancel } = form.elements;
  const body = row.querySelector(".body");
  const button = row.querySelector(".edit");

  function close() {
    form.remove();
    body.hidden = button.hidden = false;
    closed();
    button.focus();
  }

  async function save() {
    if (source.value === message.source) return close();
    form.inert = true;
    try {
      await api.put(`/api/messages/${message.id}`, { source: source.value });
      const asOf = performance.now();
      store.merge("messages", [await api.get(`/api/messages/${message.id}`)], asOf);
      close();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      form.inert = false;
      form.querySelector(".error").textContent = `Not saved. ${error.message}`;
      source.focus();
    }
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    save();
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
  });
  cancel.addEventListener("click", close);
  submitOnEnter(source);
  source.value = message.source;
  body.hidden = button.hidden = true;
  body.after(form);
  source.focus();
}
