/* Small helpers over the DOM. */

export const part = (id) => document.getElementById(id);

/** An element with properties and children. */
export function element(tag, { dataset = {}, ...properties } = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  Object.assign(made.dataset, dataset);
  made.append(...children);
  return made;
}

/** One of the page's icons. */
export function icon(name) {
  const space = 'http://www.w3.org/2000/svg';
  const [svg, use] = ['svg', 'use'].map((tag) => document.createElementNS(space, tag));
  svg.setAttribute('aria-hidden', 'true');
  use.setAttribute('href', `#i-${name}`);
  svg.append(use);
  return svg;
}

/** Children of `parent`, one for each item in order: those that are there stay, and keep focus and what was typed. */
export function keyed(parent, items, make, update) {
  const there = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  items.forEach((item, i) => {
    const key = String(item.id);
    const child = there.get(key) ?? make(item);
    child.dataset.key = key;
    there.delete(key);
    if (parent.children[i] !== child) parent.insertBefore(child, parent.children[i] ?? null);
    update(child, item, i);
  });
  for (const left of there.values()) leave(parent, left);
}

/** Remove an element; the focus, if it was inside, goes to its neighbour. */
function leave(parent, child) {
  const next = child.nextElementSibling ?? child.previousElementSibling;
  const focused = child.contains(document.activeElement);
  child.remove();
  if (focused) (next?.matches('button, input') ? next : next?.querySelector('button, input') ?? parent).focus();
}

/** A line at the bottom for some seconds, with what may be done about it. */
export function toast(text, { action = '', act = () => {}, bad = false } = {}) {
  const box = part('toasts');
  const made = element('div', { className: bad ? 'toast bad' : 'toast' }, element('span', { textContent: text }));
  if (action) {
    const button = element('button', { type: 'button', textContent: action });
    button.addEventListener('click', () => {
      made.remove();
      act();
    });
    made.append(button);
  }
  box.replaceChildren(made);
  const end = () => (made.matches(':hover, :focus-within') ? setTimeout(end, 2000) : made.remove());
  setTimeout(end, action || bad ? 9000 : 4000);
}
