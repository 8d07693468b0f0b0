/** Small helpers for the page's elements. */

export const byId = (id) => document.getElementById(id);

/** A copy of the one element inside a <template>. */
export function clone(templateId) {
  return byId(templateId).content.firstElementChild.cloneNode(true);
}

/** Set an element's hue to the nth of a series: multiples of the golden angle lie far from each other. */
export function tint(element, n) {
  element.style.setProperty("--hue", Math.round((n * 137.508) % 360));
}

/** Fill an avatar with the initial and the colour of a user, who may not be known yet. */
export function fillAvatar(avatar, userId, nickname = "") {
  avatar.textContent = [...nickname][0]?.toUpperCase() ?? "";
  tint(avatar, userId);
}

/** Call `render` once for all the changes of the next few milliseconds. */
export function batched(render) {
  let timer = null;
  return () => {
    timer ??= setTimeout(() => {
      timer = null;
      render();
    }, 16); // not an animation frame: those stop on a hidden page, whose title counts unread messages
  };
}

/** Let Enter submit a textarea's form; Shift+Enter, and Enter on a touch keyboard, start a new line. */
export function submitOnEnter(textarea) {
  const touch = matchMedia("(pointer: coarse)");
  textarea.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || touch.matches) return;
    event.preventDefault();
    textarea.form.requestSubmit();
  });
}
