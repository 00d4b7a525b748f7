/* From a picture to what a network reads: channels, scale, polarity, size, in that order, as export/README.md says and
   edgemeta_device.py does. No DOM: a picture is {data: RGBA bytes, width, height} without transparency. */

const LUMA = [19595, 38470, 7471]; // .299, .587, .114 in 16 bits: Pillow rounds a pixel to a byte this way

export class ImageError extends Error {}

/** Float32Array of channels * height * width, from a picture and the manifest's normalisation. */
export function preprocess(picture, rule) {
  const { width, height } = picture;
  if (!(width > 0 && height > 0)) throw new ImageError('This picture is empty.');
  const sizes = [rule.height, rule.width];
  const planes = channels(picture, rule.channels);
  for (const plane of planes) for (let i = 0; i < plane.length; i++) plane[i] *= rule.scale;
  if (rule.polarity === 'ink-high' && edge(planes, height, width) > 0.5) {
    for (const plane of planes) for (let i = 0; i < plane.length; i++) plane[i] = 1 - plane[i];
  }
  const x = new Float32Array(rule.channels * rule.height * rule.width);
  planes.forEach((plane, i) => x.set(resize(plane, [height, width], sizes), i * rule.height * rule.width));
  return x;
}

/** Whether pictures are what a bundle reads. */
export const readsPictures = (rule) => rule.channels === 1 || rule.channels === 3;

/** RGBA bytes as grey, or as red, green and blue. */
function channels({ data, width, height }, count) {
  const size = width * height;
  if (count === 3) return [0, 1, 2].map((channel) => plane(data, channel, size));
  if (count !== 1) throw new ImageError(`This bundle reads ${count} channels, which no picture has.`);
  const [red, green, blue] = LUMA;
  const grey = new Float32Array(size);
  for (let i = 0; i < size; i++) {
    grey[i] = (data[4 * i] * red + data[4 * i + 1] * green + data[4 * i + 2] * blue + 0x8000) >> 16;
  }
  return [grey];
}

function plane(data, channel, size) {
  const values = new Float32Array(size);
  for (let i = 0; i < size; i++) values[i] = data[4 * i + channel];
  return values;
}

/** The median of the outermost rows and columns of all channels; a corner is in both. */
function edge(planes, height, width) {
  const values = [];
  for (const plane of planes) {
    for (let column = 0; column < width; column++) values.push(plane[column], plane[(height - 1) * width + column]);
    for (let row = 0; row < height; row++) values.push(plane[row * width], plane[(row + 1) * width - 1]);
  }
  values.sort((a, b) => a - b);
  const middle = values.length / 2;
  return (values[middle - 1] + values[middle]) / 2; // their number is even
}

/** Each axis by itself with a triangle filter, widened when shrinking so that every pixel counts: Pillow's BILINEAR. */
export function resize(plane, [height, width], [newHeight, newWidth]) {
  if (height === newHeight && width === newWidth) return plane;
  const [rows, columns] = [weights(height, newHeight), weights(width, newWidth)];
  const tall = new Float32Array(newHeight * width);
  rows.forEach(({ first, taps }, row) => {
    taps.forEach((tap, k) => {
      const [to, from] = [row * width, (first + k) * width];
      for (let column = 0; column < width; column++) tall[to + column] += tap * plane[from + column];
    });
  });
  const small = new Float32Array(newHeight * newWidth);
  columns.forEach(({ first, taps }, column) => {
    for (let row = 0; row < newHeight; row++) {
      let sum = 0;
      for (let k = 0; k < taps.length; k++) sum += taps[k] * tall[row * width + first + k];
      small[row * newWidth + column] = sum;
    }
  });
  return small;
}

/** For each new pixel the first old one that counts, and how much it and those after it do; together 1. */
function weights(old, count) {
  const [ratio, reach] = [old / count, Math.max(old / count, 1)];
  return Array.from({ length: count }, (_, i) => {
    const centre = (i + 0.5) * ratio;
    const [first, last] = [Math.max(0, Math.floor(centre - reach)), Math.min(old, Math.ceil(centre + reach))];
    const weight = (_, k) => Math.max(0, 1 - Math.abs(first + k + 0.5 - centre) / reach);
    const raw = Array.from({ length: last - first }, weight);
    const total = raw.reduce((sum, tap) => sum + tap, 0);
    return { first, taps: raw.map((tap) => tap / total) };
  });
}
