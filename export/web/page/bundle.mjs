/* Reading a bundle: every graph is what the manifest says, and the manifest is what was written, or there is an error
   to show. The format is specified in export/README.md. */

const [FORMAT, VERSION, NAME] = ['edgemeta-bundle', 2, 'manifest.json'];
const GRAPHS = ['body', 'adapt', 'classify'];
const [MAX_MANIFEST_BYTES, MAX_FILE_BYTES] = [2 ** 20, 2 ** 28];
const PLAIN = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$/;
const AGAIN = 'Export it again, or copy it again from where it came.';

/** Something the user can mend: what is wrong, and what to do. */
export class BundleError extends Error {}

/** {manifest, graphs: {name: bytes}} of a bundle; `read(name)` gives a file's bytes, or null where it is missing. */
export async function load(read) {
  const manifest = parse(await read(NAME));
  const names = GRAPHS.filter((name) => name !== 'body' || manifest.learner.on === 'features');
  const graphs = {};
  for (const name of names) graphs[name] = await verified(manifest, name, read);
  if ((await identity(manifest, names)) !== manifest.id) {
    throw new BundleError(`This bundle's manifest was changed after it was written. ${AGAIN}`);
  }
  return { manifest, graphs };
}

/** Files below a URL, as `load` reads them. */
export const below = (url, fetcher = fetch) => async (name) => {
  const answer = await fetcher(new URL(name, url));
  return answer.ok ? new Uint8Array(await answer.arrayBuffer()) : null;
};

function parse(bytes) {
  if (!bytes) throw new BundleError('There is no bundle here. Start the page with edgemeta serve BUNDLE.');
  const damaged = new BundleError(`This bundle's manifest is damaged. ${AGAIN}`);
  if (bytes.length > MAX_MANIFEST_BYTES) throw damaged;
  let manifest;
  try {
    manifest = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    throw damaged;
  }
  if (manifest?.format !== FORMAT || !Number.isInteger(manifest.version)) throw damaged;
  if (manifest.version !== VERSION) throw new BundleError(otherVersion(manifest.version));
  if (!sound(manifest)) throw damaged;
  return manifest;
}

function otherVersion(version) {
  const told = `This bundle has format ${version}, and this page reads format ${VERSION}.`;
  return version > VERSION
    ? `${told} Serve it with the edgemeta that wrote it, or a newer one.`
    : `${told} Export it again with this edgemeta.`;
}

/** Whether the fields that the page reads are there, of the right kind. */
function sound({ id, learner, normalisation: rule, graphs, files, costs, checked }) {
  const counts = [rule?.channels, rule?.height, rule?.width];
  return /^[0-9a-f]{64}$/.test(id) && ['features', 'images'].includes(learner?.on) && typeof learner.name === 'string'
    && (learner.steps === null || (Number.isInteger(learner.steps) && learner.steps >= 0 && learner.steps <= 1000))
    && counts.every((count) => Number.isInteger(count) && count > 0 && count <= 4096) && rule.scale > 0
    && rule.resize === 'stretch' && ['ink-high', 'as-is'].includes(rule.polarity)
    && [graphs, files, checked].every((one) => one instanceof Object) && figures(costs);
}

function figures(costs) {
  const found = costs?.measured;
  const timed = !found || [found.adapt_ms?.median_ms, found.classify_ms?.median_ms].every(Number.isFinite);
  return timed && [costs?.graph_kib, costs?.adapt_ram_kib].every(Number.isFinite);
}

async function verified(manifest, name, read) {
  const file = manifest.graphs[name]?.file;
  const listed = typeof file === 'string' && PLAIN.test(file) && Object.hasOwn(manifest.files, file);
  const info = listed && manifest.files[file];
  if (!info) throw new BundleError(`This bundle's manifest is damaged: it names no file for ${name}. ${AGAIN}`);
  const data = await read(file);
  if (!data) throw new BundleError(`This bundle is incomplete: ${file} is missing. ${AGAIN}`);
  if (data.length !== info.bytes || data.length > MAX_FILE_BYTES || (await sha256(data)) !== info.sha256) {
    throw new BundleError(`This bundle is damaged: ${file} is not the file that was written with it. ${AGAIN}`);
  }
  return data;
}

async function sha256(data) {
  if (!globalThis.crypto?.subtle) {
    throw new BundleError('The browser checks files only on localhost or over https. Open the page there.');
  }
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', data));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** SHA-256 of the graphs' hashes, the normalisation and the learner, as Python's json writes them. */
function identity({ graphs, files, normalisation, learner }, names) {
  const hashes = names.map((name) => files[graphs[name].file].sha256);
  const rule = { ...normalisation, scale: new Float(normalisation.scale) };
  return sha256(new TextEncoder().encode(pythonJson([hashes, rule, learner])));
}

/** A number that Python has as a float: 1 is "1.0" there. */
class Float {
  constructor(value) {
    this.value = value;
  }

  toString() {
    const [digits, exponent] = this.value.toExponential().split('e');
    if (exponent < -4 || exponent >= 16) return `${digits}e${exponent[0]}${exponent.slice(1).padStart(2, '0')}`;
    const text = String(this.value);
    return text.includes('.') ? text : `${text}.0`;
  }
}

/** json.dumps(value, sort_keys=True, separators=(",", ":")), for what a manifest holds. */
export function pythonJson(value) {
  if (value instanceof Float) return value.toString();
  if (Array.isArray(value)) return `[${value.map(pythonJson).join(',')}]`;
  if (value instanceof Object) {
    return `{${Object.keys(value).sort().map((key) => `${pythonJson(key)}:${pythonJson(value[key])}`).join(',')}}`;
  }
  const escaped = (sign) => `\\u${sign.charCodeAt(0).toString(16).padStart(4, '0')}`;
  return JSON.stringify(value).replace(/[\u007f-\uffff]/g, escaped);
}

export const asFloat = (value) => new Float(value);
