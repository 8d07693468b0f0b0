/** The participants: who is online, and who was here. */

import { batched, byId, clone, fillAvatar } from "./dom.js";

const { compare } = new Intl.Collator(); // ten times as fast as localeCompare
const byNickname = (a, b) => compare(a.nickname, b.nickname);

export function showPeople({ store, session, sync }) {
  const panel = byId("people");
  const toggle = byId("people-toggle");
  const more = byId("more-people");

  function render() {
    const people = [...store.users.values()].sort(byNickname);
    const online = people.filter((person) => person.online);
    const away = people.filter((person) => !person.online && !store.isProbe(person.id));
    byId("online").replaceChildren(...online.map(row));
    byId("away").replaceChildren(...away.map(row));
    byId("online-count").textContent = byId("people-toggle-count").textContent = online.length;
    byId("away-count").textContent = sync.olderUsers ? `${away.length}+` : away.length;
    more.hidden = !sync.olderUsers;
  }

  function row(person) {
    const item = clone("person-template");
    fillAvatar(item.querySelector(".avatar"), person.id, person.nickname);
    item.querySelector(".name").textContent = person.nickname;
    item.querySelector(".you").hidden = person.id !== session.userId;
    return item;
  }

  /** Narrow windows only: elsewhere the panel is always there. */
  function unfold(open) {
    panel.classList.toggle("open", open);
    toggle.ariaExpanded = String(open);
  }

  toggle.addEventListener("click", () => unfold(!panel.classList.contains("open")));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !panel.classList.contains("open")) return;
    unfold(false);
    toggle.focus();
  });
  more.addEventListener("click", async () => {
    more.disabled = true;
    await sync.readOlderUsers();
    more.disabled = false;
  });
  const renderSoon = batched(render);
  store.addEventListener("change", ({ detail: kind }) => kind === "users" && renderSoon());
  session.addEventListener("change", renderSoon);
  sync.addEventListener("change", renderSoon);
}
