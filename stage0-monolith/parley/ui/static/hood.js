/** Under the hood: the last requests, and which instance served each of them. */

import { byId, clone, tint } from "./dom.js";

const REQUESTS_SHOWN = 20;
const OPEN_KEY = "parley.hood";

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

export class Hood {
  #rows = []; // {instance, element}, newest first
  #colours = new Map(); // instance → its place in the order of appearance

  /** Note a request; bound, so that it can be handed over as a function. */
  log = ({ method, path, status, ok, ms, instance }) => {
    const element = clone("request-template");
    const set = (name, text) => (element.querySelector(`.${name}`).textContent = text);
    set("time", clock.format(new Date()));
    set("method", method);
    set("path", path);
    set("status", status);
    set("ms", Math.round(ms));
    const nobody = method === "emit" ? "through the socket" : "no answer";
    element.querySelector(".instance").append(instance ? this.#chip(instance) : nobody);
    element.classList.toggle("failed", !ok);
    byId("requests").prepend(element);
    this.#rows.unshift({ instance, element });
    for (const row of this.#rows.splice(REQUESTS_SHOWN)) row.element.remove();
    this.#count();
  };

  start({ connection, reload }) {
    const panel = byId("hood");
    const showSocket = () => this.#showSocket(connection);
    connection.addEventListener("change", showSocket);
    connection.addEventListener("upgrade", showSocket);
    showSocket();
    byId("reload-messages").addEventListener("click", reload);
    panel.open = localStorage.getItem(OPEN_KEY) !== null;
    panel.addEventListener("toggle", () => {
      if (panel.open) localStorage.setItem(OPEN_KEY, "open");
      else localStorage.removeItem(OPEN_KEY);
    });
  }

  /** How many of the requests shown each instance has served. */
  #count() {
    const counts = new Map();
    for (const { instance } of this.#rows) {
      if (instance) counts.set(instance, (counts.get(instance) ?? 0) + 1);
    }
    const chips = [...counts].sort().map(([instance, count]) => {
      const chip = this.#chip(instance);
      chip.append(Object.assign(document.createElement("b"), { textContent: count }));
      return chip;
    });
    byId("hood-instances").replaceChildren(...chips);
  }

  #chip(instance) {
    if (!this.#colours.has(instance)) this.#colours.set(instance, this.#colours.size);
    const chip = Object.assign(document.createElement("span"), { className: "chip", textContent: instance });
    tint(chip, this.#colours.get(instance));
    return chip;
  }

  #showSocket({ connected, transport, since }) {
    const time = clock.format(performance.timeOrigin + since);
    byId("hood-transport").textContent = connected ? transport : "no socket";
    byId("hood-socket").textContent = connected
      ? `Socket.IO: ${transport}, connected since ${time}`
      : `Socket.IO: not connected since ${time}; polling every 3 s`;
  }
}
