"use strict";
// From the bytes of a file to the pixels that the model receives, as the package reads them (images/radiographs,
// images/grey, images/pixels): its numbers are computed here, not left to the canvas.
const MAX_PIXELS = 64e6, STRIP = 4e6, MIN_SIDE = 32, MAX_ASPECT = 5, MIN_DEVIATION = 2, COLOURED = 12;

class Refused extends Error {}

const text = (bytes, start, length) => String.fromCharCode(...bytes.subarray(start, start + length));

/** A file that every browser decodes alike, and its EXIF orientation (1 to 8), which is taken out: browsers differ. */
function prepareFile(bytes) {
  if (!bytes.length) throw new Refused("The file is empty: get a complete copy.");
  if (text(bytes, 1, 3) === "PNG") return preparePng(bytes);
  if (bytes[0] === 0xff && bytes[1] === 0xd8) return prepareJpeg(bytes);
  if (text(bytes, 0, 4) === "RIFF" && text(bytes, 8, 4) === "WEBP") return prepareWebp(bytes);
  throw new Refused("The page reads PNG, JPEG and WebP of 8 bits; DICOM, TIFF and others need the package's predict.");
}

function preparePng(bytes) {
  const view = new DataView(bytes.buffer);
  if (bytes[24] > 8) throw new Refused("This PNG has 16 bits a sample, and the page reads 8: use the package's predict.");
  let orientation = 1;
  for (let place = 8; place + 12 <= bytes.length; ) {
    const next = place + 12 + view.getUint32(place), kind = text(bytes, place + 4, 4);
    if (kind === "IEND") return [new Blob([bytes]), orientation];
    if (kind === "eXIf" && next <= bytes.length) {
      orientation = takeOrientation(view, place + 8, next - 4);
      bytes.set([0x74, 0x65, 0x73, 0x74], place + 4); // a private chunk, which decoders skip
    }
    place = next;
  }
  throw new Refused("The PNG is truncated: get a complete copy.");
}

function prepareJpeg(bytes) {
  const view = new DataView(bytes.buffer);
  let place = 2, orientation = 1;
  while (place + 9 < bytes.length && bytes[place] === 0xff) {
    const marker = bytes[place + 1];
    if (marker === 0xff) { place += 1; continue; }
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      if (bytes[place + 4] !== 8) throw new Refused("This JPEG has more than 8 bits a sample, which the page does not read.");
      if (bytes[place + 9] === 4) throw new Refused("This JPEG is in CMYK, which the page does not read: save it as grey or RGB.");
    }
    if (marker === 0xda) break;
    const next = place + 2 + view.getUint16(place + 2);
    if (marker === 0xe1 && text(bytes, place + 4, 4) === "Exif") orientation = takeOrientation(view, place + 10, next);
    place = next;
  }
  // in the data after here, 0xff is followed by 0, unless it begins a marker
  for (let end = bytes.length - 1; end > place; end--) {
    if (bytes[end] === 0xd9 && bytes[end - 1] === 0xff) return [new Blob([bytes]), orientation];
  }
  throw new Refused("The JPEG is truncated: get a complete copy.");
}

function prepareWebp(bytes) {
  const view = new DataView(bytes.buffer), end = 8 + view.getUint32(4, true);
  if (end > bytes.length) throw new Refused("The WebP is truncated: get a complete copy.");
  let orientation = 1;
  for (let place = 12; place + 8 <= end; ) {
    const size = view.getUint32(place + 4, true), next = place + 8 + size + (size % 2);
    if (text(bytes, place, 4) === "EXIF" && next <= end) {
      const start = place + 8 + (text(bytes, place + 8, 4) === "Exif" ? 6 : 0);
      orientation = takeOrientation(view, start, place + 8 + size);
    }
    place = next;
  }
  return [new Blob([bytes]), orientation];
}

/** The orientation in EXIF data from `start` to `end`, which becomes 1 there. */
function takeOrientation(view, start, end) {
  if (start + 14 > end) return 1;
  const little = view.getUint16(start) === 0x4949, first = start + view.getUint32(start + 4, little);
  if (first + 2 > end) return 1;
  for (let at = first + 2, left = view.getUint16(first, little); left > 0 && at + 12 <= end; at += 12, left--) {
    if (view.getUint16(at, little) !== 0x0112) continue;
    const orientation = view.getUint16(at + 8, little);
    view.setUint16(at + 8, 1, little);
    return orientation >= 1 && orientation <= 8 ? orientation : 1;
  }
  return 1;
}

/** The transform (a, b, c, d, e, f) of a canvas that turns a stored picture upright. */
function turning(orientation, width, height) {
  return [
    [1, 0, 0, 1, 0, 0], [-1, 0, 0, 1, width, 0], [-1, 0, 0, -1, width, height], [1, 0, 0, -1, 0, height],
    [0, 1, 1, 0, 0, 0], [0, 1, -1, 0, height, 0], [0, -1, -1, 0, height, width], [0, -1, 1, 0, 0, width],
  ][orientation - 1];
}

/** A picture turned upright. */
function turn(picture, orientation) {
  if (orientation === 1) return picture;
  const { grey, width, height } = picture, [a, b, c, d, e, f] = turning(orientation, width, height);
  const out = new Uint8Array(grey.length), columns = orientation > 4 ? height : width;
  const [left, top] = [e - (a + c < 0 ? 1 : 0), f - (b + d < 0 ? 1 : 0)];
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++) out[(b * x + d * y + top) * columns + a * x + c * y + left] = grey[i++];
  }
  return { ...picture, grey: out, width: columns, height: orientation > 4 ? width : height };
}

/** The 8-bit luminance of a bitmap on black, as Pillow computes it, and the mean spread of its channels. */
function toGrey(bitmap) {
  const { width, height } = bitmap;
  if (width * height > MAX_PIXELS) throw new Refused(`${width} × ${height} pixels are too many: resize the picture.`);
  const grey = new Uint8Array(width * height), rows = Math.max(1, Math.min(height, Math.floor(STRIP / width)));
  const sums = new Float64Array(64 * 64 * 3), canvas = new OffscreenCanvas(width, rows);
  const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  for (let top = 0; top < height; top += rows) {
    const count = Math.min(rows, height - top);
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, -top);
    const data = context.getImageData(0, 0, width, count).data;
    for (let y = 0, i = 0, o = top * width; y < count; y++) {
      const row = 64 * Math.floor((64 * (top + y)) / height);
      for (let x = 0; x < width; x++, i += 4, o++) {
        const r = data[i], g = data[i + 1], b = data[i + 2];
        grey[o] = (19595 * r + 38470 * g + 7471 * b + 32768) >> 16;
        if (r !== g || g !== b) { // equal ones add nothing to the difference of the largest and the smallest
          const cell = 3 * (row + Math.floor((64 * x) / width));
          sums[cell] += r; sums[cell + 1] += g; sums[cell + 2] += b;
        }
      }
    }
  }
  let colour = 0; // mean over cells of the largest less the smallest channel
  for (let i = 0; i < sums.length; i += 3) {
    const cell = sums.subarray(i, i + 3);
    colour += (Math.max(...cell) - Math.min(...cell)) / (width * height);
  }
  return { grey, width, height, colour };
}

/** What a reader should know of a picture; refuses one that shows nothing. */
function checkPicture({ grey, width, height, colour }) {
  let sum = 0, squares = 0;
  for (const value of grey) { sum += value; squares += value * value; }
  const mean = sum / grey.length;
  if (Math.sqrt(Math.max(0, squares / grey.length - mean * mean)) < MIN_DEVIATION) {
    throw new Refused("The picture is almost one grey: there is nothing in it.");
  }
  const shorter = Math.min(width, height), longer = Math.max(width, height);
  return [
    colour > COLOURED && "a colour photograph, no radiograph",
    shorter < MIN_SIDE && `too small: ${width} × ${height} pixels`,
    longer > MAX_ASPECT * shorter && `very long and thin: ${width} × ${height} pixels`,
  ].filter(Boolean);
}

/** Half to even, as Python and OpenCV round. */
function round(value) {
  const low = Math.floor(value), rest = value - low;
  return rest > 0.5 || (rest === 0.5 && low % 2) ? low + 1 : low;
}

/** Top, left, height and width of a picture that is padded to a size. */
function findPaddedArea(height, width, size) {
  const scale = Math.min(size[0] / height, size[1] / width);
  const h = Math.max(1, round(height * scale)), w = Math.max(1, round(width * scale));
  return [Math.floor((size[0] - h) / 2), Math.floor((size[1] - w) / 2), h, w];
}

/** Stretch or pad a picture to [height, width], as the package does with OpenCV. */
function resize(picture, size, way) {
  if (way === "pad") {
    const [top, left, height, width] = findPaddedArea(picture.height, picture.width, size);
    const inner = resize(picture, [height, width], "stretch"), padded = new Uint8Array(size[0] * size[1]);
    for (let y = 0; y < height; y++) padded.set(inner.subarray(y * width, (y + 1) * width), (top + y) * size[1] + left);
    return padded;
  }
  const { width, height } = picture, scales = [height / size[0], width / size[1]];
  if (scales.every(scale => scale === 1)) return picture.grey.slice();
  if (scales.every(scale => scale >= 1)) {
    return scales.every(Number.isInteger) ? averageBlocks(picture, size, ...scales) : averageAreas(picture, size);
  }
  return interpolate(picture, size, height > size[0] || width > size[1]);
}

function averageBlocks({ grey, width }, [rows, columns], down, across) {
  const out = new Uint8Array(rows * columns), share = Math.fround(1 / (down * across));
  for (let y = 0; y < rows; y++) for (let x = 0; x < columns; x++) {
    let sum = 0;
    for (let j = 0; j < down; j++) for (let i = 0; i < across; i++) sum += grey[(y * down + j) * width + x * across + i];
    out[y * columns + x] = down === 2 && across === 2 ? (sum + 2) >> 2 : round(Math.fround(sum * share));
  }
  return out;
}

/** For each cell of `count`, the pixels of `side` below it and their shares. */
function findShares(side, count) {
  const scale = side / count;
  return Array.from({ length: count }, (_, cell) => {
    const from = cell * scale, to = from + scale, whole = Math.min(scale, side - from), parts = [];
    const last = Math.min(Math.floor(to), side - 1), first = Math.min(Math.ceil(from), last);
    if (first - from > 1e-3) parts.push([first - 1, Math.fround((first - from) / whole)]);
    for (let i = first; i < last; i++) parts.push([i, Math.fround(1 / whole)]);
    if (to - last > 1e-3) parts.push([last, Math.fround(Math.min(to - last, 1, whole) / whole)]);
    return parts;
  });
}

function averageAreas({ grey, width, height }, [rows, columns]) {
  const down = findShares(height, rows), across = findShares(width, columns), out = new Uint8Array(rows * columns);
  const line = new Float32Array(columns), sum = new Float32Array(columns);
  for (let y = 0; y < rows; y++) {
    sum.fill(0);
    for (const [row, share] of down[y]) {
      line.fill(0);
      for (let x = 0; x < columns; x++) for (const [i, part] of across[x]) line[x] += Math.fround(grey[row * width + i] * part);
      for (let x = 0; x < columns; x++) sum[x] += Math.fround(share * line[x]);
    }
    for (let x = 0; x < columns; x++) out[y * columns + x] = Math.min(255, round(sum[x]));
  }
  return out;
}

/** For each cell, the two pixels that it lies between and the weights of both, in 2048ths; `area`: one side shrinks. */
function findNeighbours(side, count, area) {
  const scale = side / count;
  return Array.from({ length: count }, (_, cell) => {
    const place = Math.fround((cell + 0.5) * scale - 0.5), from = Math.floor(area ? cell * scale : place);
    let rest = Math.fround(area ? cell + 1 - (from + 1) / scale : place - from);
    if (area) rest = rest <= 0 ? 0 : Math.fround(rest - Math.floor(rest));
    const both = [from, from + 1].map(pixel => Math.min(Math.max(pixel, 0), side - 1));
    return [...both, round(Math.fround((1 - rest) * 2048)), round(Math.fround(rest * 2048))];
  });
}

function interpolate({ grey, width, height }, [rows, columns], area) {
  const down = findNeighbours(height, rows, area);
  const across = findNeighbours(width, columns, area).map(([a, b, p, q]) => (a === b ? [a, b, 2048, 0] : [a, b, p, q]));
  const out = new Uint8Array(rows * columns);
  const line = row => Int32Array.from(across, ([a, b, p, q]) => grey[row * width + a] * p + grey[row * width + b] * q);
  for (let y = 0; y < rows; y++) {
    const [above, below, p, q] = down[y], upper = line(above), lower = line(below);
    for (let x = 0; x < columns; x++) {
      out[y * columns + x] = (((p * (upper[x] >> 4)) >> 16) + ((q * (lower[x] >> 4)) >> 16) + 2) >> 2;
    }
  }
  return out;
}
