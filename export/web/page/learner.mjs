/* A bundle that learns and answers, on onnxruntime-web or anything with its interface. Examples are kept by number as
   what the learner reads: features where it leaves the network alone, else images. */

/** Sessions of a bundle's graphs, each of which has run once: the first run is slow. */
export async function create(ort, { manifest, graphs }, { tell = () => {}, provider = 'wasm' } = {}) {
  const sessions = {};
  for (const [name, graph] of Object.entries(graphs)) {
    sessions[name] = await ort.InferenceSession.create(graph, { executionProviders: [provider] });
    tell(Object.keys(sessions).length / (Object.keys(graphs).length + 1));
  }
  const learner = new Learner(ort, manifest, sessions);
  await learner.warmUp();
  return learner;
}

export class Learner {
  #ort; #manifest; #sessions; #reads; #kept = new Map(); #fast = {};

  constructor(ort, manifest, sessions) {
    [this.#ort, this.#manifest, this.#sessions] = [ort, manifest, sessions];
    this.#reads = manifest.learner.on === 'features' ? 'features' : 'x'; // what the graphs call an example
  }

  /** Keep examples, [{id, x: Float32Array}], and drop those whose numbers are in `drop`. */
  async keep(examples, drop = []) {
    for (const id of drop) this.#kept.delete(id);
    for (const { id, x } of examples) this.#kept.set(id, (await this.#read(x)).data);
  }

  /** Learn from kept examples: `ids` and, for each, the place of its class among `way`. {ms}: of the graph. */
  async adapt(ids, labels, way) {
    this.#fast = {};
    if (!ids.length) return { ms: 0 };
    const each = this.#kept.get(ids[0]).length;
    const [rows, onehot] = [new Float32Array(ids.length * each), new Float32Array(ids.length * way)];
    ids.forEach((id, i) => {
      rows.set(this.#kept.get(id), i * each);
      onehot[i * way + labels[i]] = 1;
    });
    const feeds = {
      [this.#reads]: this.#tensor(rows, [ids.length, ...this.#shape(each)]),
      onehot: this.#tensor(onehot, [ids.length, way]),
      steps: new this.#ort.Tensor('int64', [BigInt(this.#manifest.learner.steps ?? ids.length)], []),
    };
    const begin = performance.now();
    const fast = await this.#sessions.adapt.run(feeds);
    const ms = performance.now() - begin;
    this.#fast = fast;
    return { ms };
  }

  /** Logits of one picture, and the milliseconds from its tensor to them. */
  async classify(x) {
    const begin = performance.now();
    const read = await this.#read(x);
    const known = { ...this.#fast, [this.#reads]: read };
    const feeds = Object.fromEntries(this.#sessions.classify.inputNames.map((name) => [name, known[name]]));
    const { logits } = await this.#sessions.classify.run(feeds);
    return { logits: Array.from(logits.data), ms: performance.now() - begin };
  }

  /** Run everything once, on two made-up pictures. */
  async warmUp() {
    const { channels, height, width } = this.#manifest.normalisation;
    const made = (id) => Float32Array.from({ length: channels * height * width }, (_, i) => ((i + id) % 7) / 7);
    const pictures = [0, 1].map((id) => ({ id, x: made(id) }));
    await this.keep(pictures);
    await this.adapt([0, 1], [0, 1], 2);
    await this.classify(pictures[0].x);
    await this.keep([], [0, 1]);
    this.#fast = {};
  }

  /** A picture as the learner reads it. */
  async #read(x) {
    const { channels, height, width } = this.#manifest.normalisation;
    const image = this.#tensor(x, [1, channels, height, width]);
    return this.#sessions.body ? (await this.#sessions.body.run({ x: image })).z : image;
  }

  #shape(each) {
    const { channels, height, width } = this.#manifest.normalisation;
    return this.#sessions.body ? [each] : [channels, height, width];
  }

  #tensor(data, shape) {
    return new this.#ort.Tensor('float32', data, shape);
  }
}

/** Softmax. */
export function probabilities(logits) {
  const most = Math.max(...logits);
  const raw = logits.map((logit) => Math.exp(logit - most));
  const total = raw.reduce((sum, value) => sum + value, 0);
  return raw.map((value) => value / total);
}
