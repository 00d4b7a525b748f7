/* What is being shown: a drawing, a picture or the camera. */

import { Ink } from './ink.mjs';
import * as pictures from './pictures.mjs';

const MODES = ['draw', 'picture', 'camera'];

export class Stage {
  #root; #ink; #bitmap = null; #mode = 'draw'; #stop = null; #asked = 0; #changed; #told;

  /** `changed()` after every change of the picture; `told(error)` where there is something to mend. */
  constructor(root, changed, told) {
    [this.#root, this.#changed, this.#told] = [root, changed, told];
    this.#ink = new Ink(this.#part('paper'), this.#part('cross'), () => this.#refresh());
    for (const mode of MODES) this.#part(`mode-${mode}`).addEventListener('change', () => this.show(mode));
    this.#part('clear').addEventListener('click', () => this.clear());
    this.#part('undo').addEventListener('click', () => this.undo());
    this.#part('retry').addEventListener('click', () => this.show('camera'));
    this.#part('file').addEventListener('change', ({ target }) => {
      if (target.files.length) this.take(target.files[0]);
      target.value = '';
    });
    this.#refresh();
  }

  get live() {
    return this.#mode === 'camera' && Boolean(this.#stop);
  }

  /** Canvas, bitmap or video; null while nothing is shown. */
  get source() {
    if (this.#mode === 'draw') return this.#ink.blank ? null : this.#ink.source;
    if (this.#mode === 'picture') return this.#bitmap;
    return this.live ? this.#part('video') : null;
  }

  async show(mode) {
    this.#part(`mode-${mode}`).checked = true;
    this.#asked += 1;
    this.#stop?.();
    [this.#mode, this.#stop] = [mode, null];
    this.#part('trouble').textContent = '';
    this.#refresh();
    if (mode === 'camera') await this.#film(this.#asked);
  }

  /** Show a picture file. */
  async take(file) {
    try {
      const bitmap = await pictures.decode(file);
      this.#bitmap?.close();
      this.#bitmap = bitmap;
    } catch (error) {
      this.#told(error);
      return;
    }
    const canvas = this.#part('view');
    [canvas.width, canvas.height] = [this.#bitmap.width, this.#bitmap.height];
    canvas.getContext('2d').drawImage(this.#bitmap, 0, 0);
    await this.show('picture');
  }

  clear() {
    if (this.#mode === 'draw') this.#ink.clear();
    if (this.#mode !== 'picture') return;
    this.#bitmap?.close();
    this.#bitmap = null;
    this.#refresh();
  }

  undo() {
    if (this.#mode === 'draw') this.#ink.undo();
  }

  /** `asked` tells whether another mode was chosen while the browser asked for permission. */
  async #film(asked) {
    try {
      const stop = await pictures.camera(this.#part('video'));
      if (asked !== this.#asked) return stop();
      this.#stop = stop;
    } catch (error) {
      if (asked === this.#asked) this.#part('trouble').textContent = error.message;
    }
    return this.#refresh();
  }

  #refresh() {
    this.#root.dataset.mode = this.#mode;
    this.#root.dataset.filled = this.source !== null;
    const drawn = this.#mode === 'draw' && !this.#ink.blank;
    this.#part('undo').disabled = !drawn;
    this.#part('clear').disabled = !drawn && !(this.#mode === 'picture' && this.#bitmap);
    this.#changed();
  }

  #part(name) {
    return this.#root.querySelector(`#${name}`);
  }
}
