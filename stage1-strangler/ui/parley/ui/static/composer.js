/** The box in which a message is written; its draft survives a reload and an expired session. */

import { byId, submitOnEnter } from "./dom.js";

const LONGEST = 4_000; // characters, as the API counts them
const TELL_FROM = 3_600;
const DRAFT_KEY = "parley.draft";

/** `editLast` opens the user's newest message, on ↑ in an empty box; `scrollToEnd` shows what was sent. */
export function showComposer({ session, outbox, editLast, scrollToEnd }) {
  const form = byId("composer");
  const draft = byId("draft");
  const count = byId("draft-count");

  function remember() {
    sessionStorage.setItem(DRAFT_KEY, draft.value);
    const left = LONGEST - [...draft.value].length;
    if (left < 0) count.textContent = `${-left} characters too many`;
    else count.textContent = left < LONGEST - TELL_FROM ? `${left} characters left` : "";
    form.classList.toggle("too-long", left < 0);
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!draft.value.trim() || [...draft.value].length > LONGEST) return;
    outbox.add(draft.value);
    draft.value = "";
    remember();
    draft.focus();
    scrollToEnd();
  });
  draft.addEventListener("input", remember);
  draft.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowUp" || draft.value) return;
    event.preventDefault();
    editLast();
  });
  submitOnEnter(draft);

  session.addEventListener("change", ({ detail: reason }) => {
    if (reason !== "ended") return;
    draft.value = ""; // the next one to sign in here may be somebody else
    remember();
  });
  draft.value = sessionStorage.getItem(DRAFT_KEY) ?? "";
  remember();
}
