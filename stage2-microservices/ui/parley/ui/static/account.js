/** Sign in, create an account, sign out here, sign out everywhere. */

import { ApiError, basic, idempotencyKey, persist } from "./api.js";
import { byId, fillAvatar } from "./dom.js";

const NOTES = {
  begun: "",
  ended: "You have signed out. You can go on reading.",
  expired: "Your session has expired. Sign in again to go on: what you were writing is kept.",
};
const INVITATION = "You can read along. To write, sign in or create an account.";

/** `say` shows the user a sentence for a while. */
export function showAccount({ session, store, api, say }) {
  const form = byId("sign-in");
  const { nickname, password } = form.elements;
  const account = byId("account");
  const error = byId("sign-in-error");

  function render() {
    const signedIn = session.token !== null;
    byId("composer").hidden = !signedIn;
    form.hidden = signedIn;
    account.hidden = !signedIn;
    if (!signedIn) return;
    const name = store.users.get(session.userId)?.nickname ?? "";
    byId("account-name").textContent = name;
    fillAvatar(account.querySelector(".avatar"), session.userId, name);
    if (name) nickname.value = name; // ready for the day the session expires
  }

  /** Sign in; a new account is created first if that was the button. */
  async function enter(create) {
    const credentials = { nickname: nickname.value, password: password.value };
    let done = "";
    const showRetry = (failure) => { error.textContent = `${done}${failure.message} (Trying again.)`; };
    if (create) {
      const key = { "Idempotency-Key": idempotencyKey() };
      await persist(() => api.post("/api/users", credentials, key), showRetry);
      done = "Your account is created. ";
    }
    const headers = { Authorization: basic(credentials.nickname, credentials.password) };
    const { token } = await persist(() => api.post("/api/tokens", null, headers), showRetry).catch((failure) => {
      if (create) failure.message = `${done}Signing in failed: choose “Sign in” in a few seconds.`;
      throw failure;
    });
    password.value = "";
    session.begin(token);
    byId("draft").focus();
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const create = event.submitter?.value === "register";
    error.textContent = "";
    form.inert = true;
    try {
      await enter(create);
      error.textContent = "";
    } catch (failure) {
      if (!(failure instanceof ApiError)) throw failure;
      error.textContent = explain(failure);
    } finally {
      form.inert = false;
    }
    if (error.textContent) password.focus();
  });

  async function signOut() {
    try {
      await api.delete("/api/tokens");
    } catch (failure) {
      if (!(failure instanceof ApiError)) throw failure;
      if (failure.status !== 401) { // 401: the token was revoked or has expired, and needs no revoking
        say("You have signed out here, but the server does not know: the token lives on for up to an hour.");
      }
    }
    session.end();
  }

  async function signOutEverywhere() {
    try {
      await api.delete("/api/users/me");
      await api.delete("/api/tokens?all=1");
      session.end();
    } catch (failure) {
      if (!(failure instanceof ApiError)) throw failure;
      if (failure.status === 401) say("This session was over already. Sign in again to sign out everywhere else.");
      else say(`You are still signed in: ${failure.message}`);
    }
  }

  byId("sign-out").addEventListener("click", signOut);
  byId("sign-out-everywhere").addEventListener("click", signOutEverywhere);
  account.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    account.open = false;
    account.querySelector("summary").focus();
  });
  document.addEventListener("click", (event) => {
    if (!account.contains(event.target)) account.open = false;
  });

  session.addEventListener("change", ({ detail: reason }) => {
    const wasHere = [byId("composer"), account].some((place) => place.contains(document.activeElement));
    account.open = false;
    byId("sign-in-note").textContent = NOTES[reason];
    if (reason === "ended") nickname.value = "";
    render();
    if (wasHere && !session.token) (nickname.value ? password : nickname).focus();
  });
  store.addEventListener("change", render);
  byId("sign-in-note").textContent = INVITATION;
  render();
}

function explain(failure) {
  switch (failure.status) {
    case 401: return "No account has this nickname and password. New here? Choose “Create account”.";
    case 409: return "This nickname is taken. If it is yours, choose “Sign in”.";
    default: return failure.message;
  }
}
