"use strict";
// One floating label for everything that carries data-tip; text only, so nothing in a name can become markup.
(() => {
  const tip = document.getElementById("tip");
  const show = (event) => {
    const owner = event.target instanceof Element ? event.target.closest("[data-tip]") : null;
    tip.hidden = !owner;
    if (!owner) return;
    tip.textContent = owner.dataset.tip;
    const room = { x: document.documentElement.clientWidth - tip.offsetWidth - 8, y: innerHeight - tip.offsetHeight - 8 };
    const below = event.clientY + 18;
    tip.style.left = Math.max(8, Math.min(event.clientX + 14, room.x)) + "px";
    tip.style.top = Math.max(8, below > room.y ? event.clientY - tip.offsetHeight - 14 : below) + "px";
  };
  addEventListener("pointermove", show);
  addEventListener("pointerdown", show);
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
})();
