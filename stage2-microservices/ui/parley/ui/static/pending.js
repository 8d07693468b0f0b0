/** The messages that are on their way, and those that did not get through. */

import { byId, clone, fillAvatar, tint } from "./dom.js";

export function showPending({ outbox, store, session }) {
  const list = byId("outbox");
  const rows = new Map(); // outbox entry → list item

  function render() {
    const entries = outbox.visible();
    for (const [entry, row] of rows) {
      if (entries.includes(entry)) continue;
      rows.delete(entry);
      row.remove();
    }
    // Messages are sent one after the other: when one waits for the server, those behind it wait too.
    const waiting = entries.find((entry) => entry.waiting)?.waiting;
    for (const entry of entries) fill(rows.get(entry) ?? addRow(entry), entry.error, waiting);
  }

  function addRow(entry) {
    const row = clone("pending-template");
    const author = store.users.get(entry.userId)?.nickname ?? "";
    tint(row.querySelector("article"), entry.userId);
    fillAvatar(row.querySelector(".avatar"), entry.userId, author);
    row.querySelector(".author").textContent = author;
    row.querySelector(".body").textContent = entry.source;
    row.querySelector("[name=retry]").addEventListener("click", () => outbox.retry(entry));
    row.querySelector("[name=discard]").addEventListener("click", () => {
      outbox.discard(entry);
      byId("draft").focus();
    });
    rows.set(entry, row);
    list.append(row);
    return row;
  }

  function fill(row, error, waiting) {
    const state = inWords(error, waiting);
    const shown = row.querySelector(".state");
    if (shown.textContent !== state) shown.textContent = state;
    row.classList.toggle("failed", Boolean(error));
    row.querySelector(".actions").hidden = !(error || waiting) || session.token === null;
    row.querySelector("[name=retry]").hidden = !error;
  }

  outbox.addEventListener("change", render);
  store.addEventListener("change", render);
  session.addEventListener("change", render);
}

function inWords(error, waiting) {
  if (error) return `Not sent. ${error.message}`;
  return waiting ? `Waiting for the server. ${waiting.message}` : "sending…";
}
