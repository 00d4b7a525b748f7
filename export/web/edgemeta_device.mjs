/* Run an edgemeta bundle under Node: learn new classes from a few images, predict, keep the state.

   node edgemeta_device.mjs enroll  BUNDLE IMAGES [--state state.json]     a folder per class
   node edgemeta_device.mjs predict BUNDLE PHOTO... [--state state.json]   files, or folders of them

   Needs onnxruntime-node, and sharp to read images: `npm install --ignore-scripts`, for they bring what they need. The state is the file that the browser page saves
   and opens. As a library: Device.open(folder), enroll, forget, predict, save, load. */

import fs from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';

import { BundleError, load } from './page/bundle.mjs';
import { ImageError, preprocess } from './page/images.mjs';
import { create, probabilities } from './page/learner.mjs';
import {
  NOTHING, TaughtError, addClass, addExamples, forget, fromFile, taskOf, toFile, waysOf,
} from './page/taught.mjs';

const KINDS = new Set(['.png', '.jpg', '.jpeg', '.webp', '.gif', '.tif', '.tiff', '.avif']);
const USAGE = 'usage: edgemeta_device.mjs enroll|predict BUNDLE IMAGE... [--state state.json]';

/** Something the user can mend, in one line. */
export class DeviceError extends Error {}

export class Device {
  #learner; #manifest; #state = NOTHING; #stale = false;

  constructor(learner, manifest) {
    [this.#learner, this.#manifest] = [learner, manifest];
  }

  /** The bundle in a folder, every file of which is what its manifest says. */
  static async open(folder) {
    if (!fs.existsSync(path.join(folder, 'manifest.json'))) {
      throw new DeviceError(`there is no bundle in ${folder}; edgemeta export writes one`);
    }
    const ort = (await optional('onnxruntime-node', 'run graphs')).default;
    const read = async (name) => fs.promises.readFile(path.join(folder, name)).catch(() => null);
    const bundle = await load(read);
    return new Device(await create(ort, bundle, { provider: 'cpu' }), bundle.manifest);
  }

  /** Classes that have examples, in the order of their first one. */
  get names() {
    return waysOf(this.#state).map(({ name }) => name);
  }

  /** Pictures of a class, {data: RGBA bytes, width, height} each; a class that is new is added. */
  async enroll(name, pictures) {
    let state = this.#state;
    let own = state.classes.find((one) => one.name === name);
    if (!own) [state, own] = addClass(state, name);
    const known = state.examples.length;
    state = addExamples(state, own.id, pictures.map((picture) => ({ x: this.#prepared(picture), thumb: '' })));
    await this.#learner.keep(state.examples.slice(known));
    [this.#state, this.#stale] = [state, true];
  }

  async forget(name) {
    const own = this.#state.classes.find((one) => one.name === name);
    if (!own) throw new DeviceError(`no class ${name}; enrolled are ${this.names.join(', ') || 'none'}`);
    const gone = this.#state.examples.filter(({ owner }) => owner === own.id).map(({ id }) => id);
    await this.#learner.keep([], gone);
    [this.#state, this.#stale] = [forget(this.#state, own.id), true];
  }

  /** {name, probability, logits}: of the class that a picture is most like. */
  async predict(picture) {
    const { names } = this;
    if (!names.length) throw new DeviceError('no classes are enrolled; enroll some images first');
    const x = this.#prepared(picture);
    if (this.#stale) {
      const { ids, labels, way } = taskOf(this.#state);
      await this.#learner.adapt(ids, labels, way);
      this.#stale = false;
    }
    const { logits } = await this.#learner.classify(x);
    const shares = probabilities(logits);
    const best = shares.indexOf(Math.max(...shares));
    return { name: names[best], probability: shares[best], logits };
  }

  /** Keep what was learned in a file: the old one or the new one is there, whatever happens. */
  save(file) {
    const staged = `${file}.${process.pid}.tmp`;
    const handle = fs.openSync(staged, 'w');
    try {
      fs.writeFileSync(handle, toFile(this.#state, this.#manifest.id));
      fs.fsyncSync(handle);
    } finally {
      fs.closeSync(handle);
    }
    fs.renameSync(staged, file);
  }

  /** Replace what was learned by what this very bundle had learned. */
  async load(file) {
    const { channels, height, width } = this.#manifest.normalisation;
    const state = fromFile(fs.readFileSync(file, 'utf8'), this.#manifest.id, channels * height * width);
    await this.#learner.keep(state.examples, this.#state.examples.map(({ id }) => id));
    [this.#state, this.#stale] = [state, true];
  }

  #prepared(picture) {
    return preprocess(picture, this.#manifest.normalisation);
  }
}

/** An image file, upright and on white, as {data: RGBA bytes, width, height}. */
export async function picture(file) {
  const sharp = (await optional('sharp', 'read images')).default;
  try {
    const plain = sharp(file).rotate().flatten({ background: '#ffffff' }).toColourspace('srgb').ensureAlpha();
    const { data, info } = await plain.raw().toBuffer({ resolveWithObject: true });
    return { data, width: info.width, height: info.height };
  } catch (error) {
    throw new DeviceError(`cannot read image ${file}: ${line(error)}`);
  }
}

async function optional(name, purpose) {
  try {
    return await import(name);
  } catch (error) {
    throw new DeviceError(`${name} is missing, to ${purpose}: ${line(error)}; npm install --ignore-scripts ${name}`);
  }
}

const line = (error) => String(error?.message ?? error).split('\n')[0].slice(0, 160);

/** Image files in a folder, or the file itself. */
function imagesIn(place) {
  if (!fs.existsSync(place)) throw new DeviceError(`${place} does not exist; give an image or a folder of images`);
  if (!fs.statSync(place).isDirectory()) return [place];
  const names = fs.readdirSync(place).sort().filter((name) => KINDS.has(path.extname(name).toLowerCase()));
  if (!names.length) throw new DeviceError(`${place} holds no images; give a folder that does`);
  return names.map((name) => path.join(place, name));
}

async function enroll(device, folders, state) {
  for (const folder of folders) {
    const within = imagesOfClasses(folder);
    for (const [name, files] of within) await device.enroll(name, await Promise.all(files.map(picture)));
  }
  device.save(state);
  console.log(`${device.names.length} classes: ${device.names.join(', ')}; state: ${state}`);
}

function imagesOfClasses(folder) {
  if (!fs.existsSync(folder)) throw new DeviceError(`${folder} does not exist; give a folder with one folder per class`);
  const names = fs.readdirSync(folder, { withFileTypes: true }).filter((one) => one.isDirectory()).map((one) => one.name);
  if (!names.length) throw new DeviceError(`${folder} has no folders; give a folder with one folder per class`);
  return names.sort().map((name) => [name, imagesIn(path.join(folder, name))]);
}

async function predict(device, places) {
  for (const file of places.flatMap(imagesIn)) {
    const { name, probability } = await device.predict(await picture(file));
    console.log(`${file}\t${name}\t${probability.toFixed(3)}`);
  }
}

async function main() {
  const options = { state: { type: 'string', default: 'state.json' } };
  const { values: { state }, positionals } = parseArgs({ options, allowPositionals: true });
  const [command, bundle, ...places] = positionals;
  if (!['enroll', 'predict'].includes(command) || !places.length) throw new DeviceError(USAGE);
  const device = await Device.open(bundle);
  if (fs.existsSync(state)) await device.load(state);
  await (command === 'enroll' ? enroll(device, places, state) : predict(device, places));
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  try {
    await main();
  } catch (error) {
    const told = [BundleError, DeviceError, ImageError, TaughtError].some((kind) => error instanceof kind);
    const usage = String(error?.code).startsWith('ERR_PARSE_ARGS') ? `${line(error)}; ${USAGE}` : line(error);
    console.error(`edgemeta_device: ${told ? line(error) : usage}`);
    process.exitCode = 2;
  }
}
