/* A sheet of paper: dark ink on white, by pointer or by keyboard, undone by stroke. */

const PEN = 1 / 14; // of the paper's width: two pixels of 28
const STEP = 1 / 28; // of an arrow key
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Ink {
  #canvas; #context; #changed; #strokes = []; #open = null; #pen = [0.5, 0.5]; #cross;

  /** `cross` is shown where the keyboard's pen is; `changed()` is called after every change. */
  constructor(canvas, cross, changed) {
    [this.#canvas, this.#cross, this.#changed] = [canvas, cross, changed];
    this.#context = canvas.getContext('2d', { willReadFrequently: true });
    canvas.addEventListener('pointerdown', (event) => this.#down(event));
    canvas.addEventListener('pointermove', (event) => this.#move(event));
    for (const name of ['pointerup', 'pointercancel']) canvas.addEventListener(name, (event) => this.#up(event));
    canvas.addEventListener('keydown', (event) => this.#key(event));
    canvas.addEventListener('blur', () => this.#lift());
    this.#draw();
  }

  get blank() {
    return !this.#strokes.length;
  }

  get source() {
    return this.#canvas;
  }

  clear() {
    this.#strokes = [];
    this.#lift();
    this.#redraw();
  }

  undo() {
    this.#strokes.pop();
    this.#redraw();
  }

  #down(event) {
    if (event.button !== 0 || this.#open) return;
    this.#cross.hidden = true;
    this.#canvas.setPointerCapture(event.pointerId);
    this.#begin(this.#place(event), event.pointerId);
  }

  #move(event) {
    if (this.#open?.pointer !== event.pointerId) return;
    const passed = event.getCoalescedEvents?.() ?? [];
    for (const one of passed.length ? passed : [event]) this.#open.points.push(this.#place(one));
    this.#redraw();
  }

  #up(event) {
    if (this.#open?.pointer === event.pointerId) this.#open = null;
  }

  #begin(point, pointer) {
    this.#open = { pointer, points: [point] };
    this.#strokes.push(this.#open);
    this.#redraw();
  }

  /** Arrows move the pen, with Shift by a quarter of the paper; Space sets it down and lifts it. */
  #key(event) {
    const arrow = ARROWS[event.key];
    if (!arrow && event.key !== ' ') return;
    event.preventDefault();
    if (arrow) {
      const step = event.shiftKey ? 0.25 : STEP;
      this.#pen = this.#pen.map((at, axis) => Math.min(1 - PEN, Math.max(PEN, at + step * arrow[axis])));
      if (this.#open) this.#open.points.push(this.#pen);
    } else if (this.#open) {
      this.#lift();
    } else {
      this.#begin(this.#pen, 'keyboard');
    }
    this.#cross.hidden = false;
    this.#cross.classList.toggle('down', Boolean(this.#open));
    [this.#cross.style.left, this.#cross.style.top] = this.#pen.map((at) => `${100 * at}%`);
    if (arrow && this.#open) this.#redraw();
  }

  #lift() {
    this.#open = null;
    this.#cross.hidden = true;
  }

  /** Where on the paper, from 0 to 1 both ways. */
  #place(event) {
    const box = this.#canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  #redraw() {
    this.#draw();
    this.#changed();
  }

  #draw() {
    const [context, size] = [this.#context, this.#canvas.width];
    context.fillStyle = '#fff';
    context.fillRect(0, 0, size, size);
    Object.assign(context, { strokeStyle: '#000', lineWidth: PEN * size, lineCap: 'round', lineJoin: 'round' });
    for (const { points } of this.#strokes) line(context, points.map(([x, y]) => [x * size, y * size]));
  }
}

/** A smooth line: each point bends the way between the middles of its neighbours. */
function line(context, points) {
  const [first, last] = [points[0], points.at(-1)];
  context.beginPath();
  context.moveTo(...first);
  for (let i = 1; i < points.length - 1; i++) {
    const [[x, y], [nextX, nextY]] = [points[i], points[i + 1]];
    context.quadraticCurveTo(x, y, (x + nextX) / 2, (y + nextY) / 2);
  }
  context.lineTo(...last);
  context.stroke();
}
