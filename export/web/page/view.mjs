/* What the page shows of a state: classes, bars, facts. No state of its own. */

import { element, icon, keyed, part } from './dom.mjs';
import { examplesOf, waysOf } from './taught.mjs';

const MOST_THUMBS = 48;
const KEYS = 9; // classes that a digit teaches

export const percent = (share) => `${Math.round(100 * share)} %`;
const short = (value) => value.toFixed(value < 0.995 ? 2 : value < 9.95 ? 1 : 0);
export const milliseconds = (ms) => `${short(ms)} ms`;
export const kibibytes = (kib) => (kib < 1024 ? `${short(kib)} KiB` : `${short(kib / 1024)} MiB`);
export const count = (n, what, many = `${what}s`) => `${n} ${n === 1 ? what : many}`;

/** The classes; `on` is what its buttons do: teach, rename, forget, drop, add. */
export function classes(state, on) {
  part('empty').hidden = state.classes.length > 0;
  part('save').disabled = !state.classes.length;
  part('chips').hidden = !state.classes.length;
  part('new-name').placeholder = state.classes.length ? 'or name a new class' : 'Name a class';
  keyed(part('chips'), state.classes, (one) => chip(one, on), (child, one, i) => {
    child.querySelector('.name').textContent = one.name;
    child.querySelector('kbd').textContent = i < KEYS ? i + 1 : '';
  });
  keyed(part('classes'), state.classes, (one) => row(one, on), (child, one) => {
    fill(child, one, examplesOf(state, one.id), on);
  });
}

const span = (className, textContent = '', ...children) => element('span', { className, textContent }, ...children);

function chip({ id }, on) {
  const key = element('kbd', { ariaHidden: 'true' });
  const made = element('button', { type: 'button', className: 'chip' }, key, span('name'));
  made.addEventListener('click', () => on.teach(id));
  return made;
}

function row({ id }, on) {
  const name = element('input', { className: 'name', maxLength: 40, autocomplete: 'off' });
  name.addEventListener('change', () => on.rename(id, name));
  name.addEventListener('keydown', (event) => event.key === 'Enter' && name.blur());
  const file = element('input', { type: 'file', accept: 'image/*', multiple: true, hidden: true });
  file.addEventListener('change', () => on.add(id, [...file.files]).finally(() => { file.value = ''; }));
  const add = quiet('add', 'picture', 'Add pictures');
  add.addEventListener('click', () => file.click());
  const forget = quiet('forget', 'forget', 'Forget');
  forget.addEventListener('click', () => on.forget(id));
  const head = element('div', { className: 'class-head' }, name, span('count'), add, forget, file);
  return element('li', { dataset: { drop: id } }, head, element('ul', { className: 'thumbs' }));
}

const quiet = (className, picture, text) =>
  element('button', { type: 'button', className: `quiet ${className}` }, icon(picture), span('', text));

function fill(child, { id, name }, examples, on) {
  const field = child.querySelector('.name');
  if (field !== document.activeElement) field.value = name;
  field.size = Math.max(2, name.length); // where the style sheet's `field-sizing` is not known
  field.setAttribute('aria-label', `Name of the class ${name}`);
  child.querySelector('.count').textContent = examples.length ? count(examples.length, 'example') : 'no examples yet';
  child.querySelector('.add').setAttribute('aria-label', `Add pictures to ${name}`);
  child.querySelector('.forget').setAttribute('aria-label', `Forget ${name}`);
  const shown = examples.slice(-MOST_THUMBS);
  const list = child.querySelector('.thumbs');
  keyed(list, shown, (one) => thumb(one, on), (item, _, i) => {
    item.firstChild.setAttribute('aria-label', `Remove example ${examples.length - shown.length + i + 1} of ${name}`);
  });
  list.dataset.more = examples.length > shown.length ? `and ${examples.length - shown.length} earlier ones` : '';
}

function thumb({ id, thumb: source }, on) {
  const drawn = source.startsWith('data:image/png');
  const image = element('img', { alt: '', src: source || 'data:,', className: drawn ? 'ink' : '', draggable: false });
  const button = element('button', { type: 'button', title: 'Remove' }, image, icon('close'));
  button.addEventListener('click', () => on.drop(id));
  return element('li', {}, button);
}

/** The answer: `shares` of the ways, null where there are none, and whether something is `shown`. Gives it as text. */
export function answer(state, shares, { shown }) {
  const ways = waysOf(state);
  const best = shares ? shares.indexOf(Math.max(...shares)) : -1;
  const sure = best >= 0 && shares[best] >= state.threshold;
  const [verdict, why] = words(ways, shares, best, sure, shown);
  part('verdict').textContent = verdict;
  part('verdict').className = shares ? (sure ? 'sure' : 'unsure') : 'idle';
  part('why').textContent = why;
  part('glance').textContent = shares ? (sure ? `${verdict} ${percent(shares[best])}` : verdict) : '';
  part('glance').className = sure ? '' : 'unsure';
  part('doubt').hidden = ways.length < 2;
  part('bars').hidden = ways.length < 2;
  part('bars').style.setProperty('--threshold', state.threshold);
  part('threshold').value = Math.round(100 * state.threshold);
  part('threshold-text').textContent = percent(state.threshold);
  keyed(part('bars'), ways, bar, (child, one, i) => {
    const share = shares ? shares[i] : 0;
    child.querySelector('.name').textContent = one.name;
    child.querySelector('i').style.inlineSize = `${100 * share}%`;
    child.querySelector('.share').textContent = shares ? percent(share) : '';
    child.classList.toggle('best', i === best && sure);
  });
  return shares ? `${verdict}. ${why}` : '';
}

function bar() {
  return element('li', {}, span('name'), span('track', '', element('i')), span('share'));
}

function words(ways, shares, best, sure, shown) {
  if (!ways.length) return ['Nothing taught yet', 'The answer appears here.'];
  if (ways.length === 1) return ['One more class', `I know ${ways[0].name}. Teach a second, and I tell them apart.`];
  if (!shares) return [shown ? 'Learning' : 'Ask me', shown ? '' : 'Draw or show something.'];
  if (sure) return [ways[best].name, `${percent(shares[best])} sure`];
  return ['Unknown', `${ways[best].name} comes closest, with ${percent(shares[best])}.`];
}

/** What the manifest says of the bundle. */
export function facts({ learner, normalisation: rule, costs, checked, id }) {
  part('ram').textContent = kibibytes(costs.adapt_ram_kib);
  part('size').textContent = kibibytes(costs.graph_kib);
  const steps = learner.steps === null ? 'a step for each example' : count(learner.steps, 'step');
  const turned = rule.polarity === 'ink-high' ? ', ink on either ground' : '';
  const rows = [
    ['Learner', `${learner.name}, on ${learner.on}, ${steps}`],
    ['Reads', `${rule.channels} × ${rule.height} × ${rule.width}${turned}`],
    ...measured(costs.measured),
    ['Checked', `answers within ${Math.max(checked.body ?? 0, checked.classify).toExponential(0)} of PyTorch’s`],
    ['Id', id.slice(0, 12)],
  ];
  const cells = rows.flatMap((row) => ['dt', 'dd'].map((tag, i) => element(tag, { textContent: row[i] })));
  part('facts').replaceChildren(...cells);
}

function measured(found) {
  if (!found) return [['Measured', 'not yet: edgemeta bench']];
  const [infer, adapt] = [(found.body_ms?.median_ms ?? 0) + found.classify_ms.median_ms, found.adapt_ms.median_ms];
  const day = found.measured_on.replaceAll('-', '\u2011'); // which does not break
  return [
    ['Measured', `${milliseconds(infer)} to answer, ${milliseconds(adapt)} to adapt to 5 × 5 examples`],
    ['On', `${found.device}, ${found.runtime}, ${count(found.threads, 'thread')}, ${day}`],
  ];
}
