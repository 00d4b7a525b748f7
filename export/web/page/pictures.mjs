/* Pictures of any origin as {data, width, height}, upright and on white, and as thumbnails. */

import { ImageError } from './images.mjs';

const MAX_PIXELS = 64e6;
const THUMB = 96; // pixels
const AS_IS = { imageOrientation: 'from-image', colorSpaceConversion: 'none' };

/** A file as a bitmap; pixels as they are stored, upright. */
export async function decode(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, AS_IS);
  } catch {
    throw new ImageError(`${file.name || 'This'} is not a picture that the browser can read.`);
  }
  if (bitmap.width * bitmap.height <= MAX_PIXELS) return bitmap;
  bitmap.close();
  const most = `${MAX_PIXELS / 1e6} megapixels`;
  throw new ImageError(`${file.name || 'This picture'} is larger than ${most}. Make it smaller first.`);
}

/** The pixels of a canvas, a bitmap, or the centre square of a video. */
export function pixels(source) {
  const { left, top, width, height } = frame(source);
  const context = sheet(width, height);
  context.drawImage(source, left, top, width, height, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}

/** A small copy as a data URL, its sides in proportion. */
export function thumbnail(source) {
  const { left, top, width, height } = frame(source);
  const scale = Math.min(1, THUMB / Math.max(width, height));
  const [small, low] = [width, height].map((side) => Math.max(1, Math.round(side * scale)));
  const context = sheet(small, low);
  Object.assign(context, { imageSmoothingQuality: 'high' });
  context.drawImage(source, left, top, width, height, 0, 0, small, low);
  const drawn = source instanceof HTMLCanvasElement;
  return drawn ? context.canvas.toDataURL('image/png') : context.canvas.toDataURL('image/jpeg', 0.85);
}

function frame(source) {
  if (!(source instanceof HTMLVideoElement)) return { left: 0, top: 0, width: source.width, height: source.height };
  const [width, height] = [source.videoWidth, source.videoHeight];
  const side = Math.min(width, height);
  return { left: (width - side) / 2, top: (height - side) / 2, width: side, height: side };
}

function sheet(width, height) {
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.fillStyle = '#fff';
  context.fillRect(0, 0, width, height);
  return context;
}

/** The camera's picture in a video element, until the returned function is called; says why there is none. */
export async function camera(video) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new ImageError('The browser shows cameras only on localhost or over https.');
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' } });
  } catch (error) {
    throw new ImageError(NO_CAMERA[error.name] ?? 'The camera did not start. Is another program using it?');
  }
  video.srcObject = stream;
  await video.play();
  return () => {
    for (const track of stream.getTracks()) track.stop();
    video.srcObject = null;
  };
}

const NO_CAMERA = {
  NotAllowedError: 'The camera is blocked. Allow it in the browser’s address bar, then try again.',
  NotFoundError: 'No camera here. Draw, or choose a picture.',
};
