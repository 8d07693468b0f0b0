/** One line on top for what the user should know: no connection, or a sentence of the moment. */

import { byId } from "./dom.js";

const PATIENCE = 1_500; // ms: an instance that is replaced is missed for less, and nobody needs to notice
const SENTENCE_STAYS = 8_000; // ms

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

/** Show the state of the connection; returns `say(sentence)`. */
export function showBanner({ connection, sync }) {
  const banner = byId("banner");
  let sentence = "";
  let timer;

  function trouble() {
    if (connection.connected) return missing();
    if (performance.now() - connection.since < PATIENCE) return "";
    return sync.error
      ? `${sync.error.message} Trying again…`
      : "No live connection: trying again. Meanwhile, new messages are fetched every few seconds.";
  }

  /** Which parts do not answer although there is a connection, as when one service is away. */
  function missing() {
    const parts = [...sync.missing].map(([kind, since]) => `the ${kind} (since ${clock.format(since)})`);
    return parts.length ? `The server cannot read ${parts.join(" and ")}. Trying again…` : "";
  }

  function render() {
    const text = trouble() || sentence;
    if (banner.textContent !== text) banner.textContent = text;
    banner.classList.toggle("trouble", Boolean(trouble()));
  }

  connection.addEventListener("change", () => {
    render();
    setTimeout(render, PATIENCE);
  });
  sync.addEventListener("change", render);

  return function say(text) {
    sentence = text;
    clearTimeout(timer);
    timer = setTimeout(() => say(""), SENTENCE_STAYS);
    render();
  };
}
