/** The conversation: messages in order, grouped by author, kept at the end while the reader is there. */

import { batched, byId, clone, fillAvatar, tint } from "./dom.js";
import { edit } from "./editor.js";
import { PROBES_KEPT } from "./store.js";

const GROUP_WITHIN = 300; // s: a message this soon after one by the same author needs no byline of its own
const NEAR_END = 80; // px

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

export function showMessages({ store, session, api }) {
  const list = byId("messages");
  const pane = byId("conversation");
  const toNewest = byId("to-newest");
  const rows = new Map(); // message id → list item; "probes" and an id for messages of the probe in a row
  let shown = false; // whether what was said before the page was opened is there
  let atEnd = true;
  let top = 0;
  let unread = 0;
  let newest = 0; // the id of the newest message so far

  function render() {
    const conversation = store.conversation();
    const entries = foldProbes(conversation, store);
    const keys = new Set(entries.map((entry) => entry.key));
    for (const [key, row] of rows) if (!keys.has(key)) remove(key, row);
    const added = conversation.filter((message) => message.id > newest && !store.isProbe(message.user_id));
    newest = Math.max(newest, ...conversation.map((message) => message.id));
    let previous = null;
    let place = list.firstElementChild;
    for (const { key, message, probes } of entries) {
      const row = rows.get(key) ?? add(key, probes ? "probes-template" : "message-template");
      if (probes) row.querySelector(".count").textContent = probes >= PROBES_KEPT ? `${PROBES_KEPT}+` : probes;
      else fill(row, message);
      row.classList.toggle("follows", !probes && follows(previous, message));
      if (row === place) place = row.nextElementSibling;
      else list.insertBefore(row, place);
      previous = probes ? null : message;
    }
    if (shown) notify(added);
    if (store.loaded) showLoaded(conversation);
    if (atEnd) scrollToEnd();
  }

  function add(key, template) {
    const row = clone(template);
    row.querySelector(".edit")?.addEventListener("click", () => openEditor(row));
    rows.set(key, row);
    return row;
  }

  function remove(key, row) {
    rows.delete(key);
    row.remove();
  }

  /** Bring a row up to date; one that is being edited waits until its editor is closed. */
  function fill(row, message) {
    if (row.querySelector(".editor")) return;
    row.querySelector(".edit").hidden = message.user_id !== session.userId;
    const author = store.users.get(message.user_id)?.nickname ?? `user ${message.user_id}`;
    if (row.message === message && row.author === author) return;
    const posted = new Date(message.created_at * 1000);
    const article = row.querySelector("article");
    article.ariaLabel = `${author}, ${clock.format(posted)}`;
    tint(article, message.user_id);
    fillAvatar(row.querySelector(".avatar"), message.user_id, author);
    row.querySelector(".author").textContent = author;
    const time = row.querySelector("time");
    time.dateTime = posted.toISOString();
    time.title = full.format(posted);
    time.textContent = clock.format(posted);
    if (row.message?.html !== message.html) fillBody(row.querySelector(".body"), message.html);
    Object.assign(row, { message, author });
  }

  function openEditor(row) {
    edit({ row, message: row.message, api, store, closed: render });
  }

  /** What comes from now on is new: a screen reader should read that aloud, but not what was there before. */
  function showLoaded(conversation) {
    shown = true;
    byId("log").ariaLive = "polite";
    const silence = "Nothing was said in the last day. Be the first!";
    byId("conversation-note").textContent = conversation.length ? "" : silence;
  }

  /** Tell of new messages those who look elsewhere: further up, or at another tab. */
  function notify(added) {
    const theirs = added.filter((message) => message.user_id !== session.userId);
    if (theirs.length > 0 && !atEnd) toNewest.hidden = false;
    if (document.hidden) unread += theirs.length;
    showUnread();
  }

  function showUnread() {
    if (!document.hidden) unread = 0;
    document.title = unread ? `(${unread}) Parley` : "Parley";
  }

  function scrollToEnd() {
    atEnd = true;
    pane.scrollTop = pane.scrollHeight;
    toNewest.hidden = true;
  }

  const renderSoon = batched(render);
  store.addEventListener("change", renderSoon);
  session.addEventListener("change", renderSoon);
  document.addEventListener("visibilitychange", showUnread);
  pane.addEventListener("scroll", () => {
    if (pane.scrollHeight - pane.scrollTop - pane.clientHeight < NEAR_END) atEnd = true;
    else if (pane.scrollTop < top) atEnd = false; // the reader went up; what is added only moves the end
    top = pane.scrollTop;
    if (atEnd) toNewest.hidden = true;
  });
  toNewest.addEventListener("click", () => {
    scrollToEnd();
    pane.focus();
  });
  const resized = new ResizeObserver(() => atEnd && scrollToEnd());
  for (const element of [pane, byId("log"), byId("outbox")]) resized.observe(element);

  /** Edit the newest message of the user, if there is one. */
  function editLast() {
    const mine = store.conversation().findLast((message) => message.user_id === session.userId);
    if (rows.has(mine?.id)) openEditor(rows.get(mine.id));
  }

  return { editLast, scrollToEnd };
}

function fillBody(body, html) {
  // The server has sanitised it, and the page's Content-Security-Policy lets no script in it run.
  body.innerHTML = html;
  for (const block of body.querySelectorAll("pre, table")) block.tabIndex = 0; // wide ones scroll, also by keyboard
}

/** Make one entry of each message, and one of all messages of the probe that follow each other. */
function foldProbes(conversation, store) {
  const entries = [];
  for (const message of conversation) {
    if (!store.isProbe(message.user_id)) entries.push({ key: message.id, message, probes: 0 });
    else if (entries.at(-1)?.probes) entries.at(-1).probes += 1;
    else entries.push({ key: `probes ${message.id}`, message, probes: 1 });
  }
  return entries;
}

function follows(previous, message) {
  return previous?.user_id === message.user_id && message.created_at - previous.created_at < GROUP_WITHIN;
}
