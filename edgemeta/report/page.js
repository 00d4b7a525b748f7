"use strict";
// One floating label for everything that carries data-tip; text only, so nothing in a name can become markup.
// By mouse and touch where the pointer is, by keyboard at the mark: each drawing is one stop, arrows walk its marks.
(() => {
  const TOUCH = 24; // px from a finger to the middle of a mark that is meant
  const MARKS = "[data-tip]";
  const tip = document.getElementById("tip");
  const middle = (mark) => {
    const box = mark.getBoundingClientRect();
    return { x: box.x + box.width / 2, y: box.y + box.height / 2 };
  };
  const show = (owner, x, y) => {
    tip.hidden = !owner;
    if (!owner) return;
    tip.textContent = owner.dataset.tip;
    const room = { x: document.documentElement.clientWidth - tip.offsetWidth - 8, y: innerHeight - tip.offsetHeight - 8 };
    tip.style.left = Math.max(8, Math.min(x + 14, room.x)) + "px";
    tip.style.top = Math.max(8, y + 18 > room.y ? y - tip.offsetHeight - 14 : y + 18) + "px";
  };
  let walked = null; // the mark that the keyboard stands on
  const stand = (mark) => {
    if (mark || walked) show(mark, mark && middle(mark).x, mark && middle(mark).y);
    walked = mark;
  };
  const near = (event) => {
    const drawing = event.target instanceof Element ? event.target.closest("svg") : null;
    const far = (mark) => Math.hypot(middle(mark).x - event.clientX, middle(mark).y - event.clientY);
    const found = [...(drawing?.querySelectorAll(MARKS) ?? [])].map((mark) => [far(mark), mark]);
    const [least, mark] = found.reduce((a, b) => (b[0] < a[0] ? b : a), [Infinity, null]);
    return least <= TOUCH ? mark : null;
  };
  const point = (event) => {
    const hit = event.target instanceof Element ? event.target.closest(MARKS) : null;
    if (!hit && walked && event.type === "pointermove") return; // a mouse at rest, under which the page was scrolled
    show(hit ?? (event.type === "pointerdown" ? near(event) : null), event.clientX, event.clientY);
  };
  addEventListener("pointermove", point);
  addEventListener("pointerdown", point);
  addEventListener("focusin", ({ target }) => stand(target.matches(MARKS + ":focus-visible") ? target : null));
  addEventListener("focusout", () => stand(null));
  addEventListener("scroll", () => { walked ? stand(walked) : show(null); }, { passive: true });

  for (const drawing of document.querySelectorAll("figure svg, ol.bars")) {
    const marks = [...drawing.querySelectorAll(MARKS)];
    if (!marks.length) continue;
    if (drawing.matches("svg")) drawing.setAttribute("role", "group"); // an image would hide its marks
    for (const mark of marks) {
      mark.setAttribute("tabindex", "-1");
      if (mark.matches("svg *")) mark.setAttribute("role", "img");
      mark.setAttribute("aria-label", mark.dataset.tip);
    }
    const around = drawing.parentElement; // an SVG that listens for focus would be a stop itself
    let stop = drawing.querySelector(".first[data-tip]") ?? marks[0];
    stop.setAttribute("tabindex", "0");
    around.addEventListener("keydown", (event) => {
      if (!event.target.closest(MARKS)) return;
      if (event.key === "Escape") return stand(null);
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      const row = marks.map((mark) => [middle(mark), mark]).sort(([a], [b]) => a.x - b.x || a.y - b.y);
      const order = drawing.matches("svg") ? row.map(([, mark]) => mark) : marks;
      const next = order[order.indexOf(stop) + step];
      if (!next) return;
      stop.setAttribute("tabindex", "-1");
      stop = next;
      stop.setAttribute("tabindex", "0");
      stop.focus();
    });
    around.addEventListener("focusin", ({ target }) => {
      const mark = target.closest(MARKS);
      if (!mark || mark === stop) return;
      stop.setAttribute("tabindex", "-1");
      stop = mark;
      stop.setAttribute("tabindex", "0");
    });
  }
})();
