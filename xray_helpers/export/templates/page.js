// The page itself: unpacks the model, judges one picture at a time and shows what was found.
const element = id => document.getElementById(id);
const DAMAGED = "This file is damaged: get a fresh copy of it.";
const wait = () => new Promise(done => requestAnimationFrame(() => setTimeout(done)));
const started = performance.now();
let shown = 0; // number of the picture that was asked for last

/** The bytes in one of the page's data blocks, as they were when the page was written. */
async function unpack(name) {
  let bytes;
  try {
    const letters = atob(element(name).textContent), packed = new Uint8Array(letters.length);
    for (let i = 0; i < letters.length; i++) packed[i] = letters.charCodeAt(i); // Uint8Array.from takes seconds
    element(name).remove();
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    bytes = await new Response(stream).arrayBuffer(); // gzip has a checksum of its own
  } catch {
    throw new Refused(DAMAGED);
  }
  if (globalThis.crypto?.subtle) { // browsers withhold it from some pages that are files
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    const found = Array.from(digest, byte => byte.toString(16).padStart(2, "0")).join("");
    if (found !== FACTS.hashes[name]) throw new Refused(DAMAGED);
  }
  return bytes;
}

async function open() {
  const [wasm, model] = await Promise.all([unpack("wasm"), unpack("model")]);
  Object.assign(ort.env.wasm, { wasmBinary: wasm, numThreads: 1, proxy: false });
  ort.env.logLevel = "error";
  const session = await ort.InferenceSession.create(new Uint8Array(model), { executionProviders: ["wasm"] });
  await test(session);
  element("status").textContent = `The model is ready after ${((performance.now() - started) / 1000).toFixed(1)} s.`;
  return session;
}

/** Refuse to run where this browser does not read or compute as Python did when the page was written. */
async function test(session) {
  const [height, width] = FACTS.size, image = new ImageData(width, height);
  const grey = Uint8Array.from({ length: height * width }, (_, i) => pattern(i % width, Math.floor(i / width)));
  grey.forEach((value, i) => image.data.set([value, value, value, 255], 4 * i));
  const read = toGrey(await createImageBitmap(image)).grey;
  if (read.some((value, i) => value !== grey[i])) {
    throw new Refused("This browser alters the pictures that a page reads, against tracking: allow it here, or use another.");
  }
  const { probabilities } = await compute(session, grey);
  if (probabilities.data.some((p, i) => !(Math.abs(p - FACTS.expected[i]) < 1e-3))) {
    throw new Refused("This browser computes other probabilities than the model has: use another.");
  }
}

const pattern = (x, y) => (x * x + 3 * y * y + x * y) & 255;

function compute(session, grey) {
  return session.run({ grey_pixels: new ort.Tensor("float32", Float32Array.from(grey), [1, ...FACTS.size, 1]) });
}

/** What the model says of a file. */
async function judge(file) {
  if (file.size > 200e6) throw new Refused("The file has more than 200 MB: it is no picture that the page reads.");
  const [blob, orientation] = prepareFile(new Uint8Array(await file.arrayBuffer()));
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new Refused("The picture cannot be read: it is damaged, or of a kind that this browser does not know.");
  }
  const picture = turn(toGrey(bitmap), orientation), notes = checkPicture(picture), session = await ready;
  const from = performance.now(), found = await compute(session, resize(picture, FACTS.size, FACTS.resize));
  return { ...decide(found, notes), bitmap, orientation, map: found.map, seconds: (performance.now() - from) / 1000 };
}

/** Probability, decision and warnings: as the package's predict. */
function decide({ probabilities, distance }, notes) {
  const each = Array.from(probabilities.data), [low, high] = FACTS.uncertain, far = distance.data[0];
  const several = FACTS.classes.length > 0;
  const p = several ? Math.min(1, each.reduce((sum, value, i) => sum + (FACTS.positives[i] ? value : 0), 0)) : each[0];
  const uncertain = low < high && low <= p && p <= high;
  const warnings = [...notes];
  if (far > FACTS.unlike) warnings.unshift("unlike the training images: do not rely on the answer");
  if (uncertain) warnings.push("too near the threshold to tell");
  const decision = uncertain ? "No decision: it abstains" : p >= FACTS.threshold ? FACTS.positive : FACTS.negative;
  return { p, each, far, warnings, decision };
}

function show(file, found) {
  const { p, each, far, warnings, decision, seconds } = found;
  element("decision").textContent = decision;
  for (const [id, value] of [["probability", p], ["distance", far]]) {
    element(id).value = value;
    element(id).textContent = value.toFixed(3);
  }
  const [low, high] = FACTS.uncertain, share = value => `${100 * value}%`;
  Object.assign(element("band").style, { left: share(low), width: share(Math.max(0, high - low)) });
  element("threshold").style.left = share(FACTS.threshold);
  element("mark").style.left = share(p);
  element("warnings").replaceChildren(...warnings.map(text => cell("li", `Warning: ${text}.`)));
  element("classes")?.replaceChildren(...FACTS.classes.map((name, i) => {
    const row = document.createElement("tr"), head = cell("th", name);
    head.scope = "row";
    row.append(head, cell("td", each[i].toFixed(3)));
    row.lastChild.dataset.value = each[i];
    return row;
  }));
  element("name").textContent = file.name;
  element("seconds").textContent = `Computed in ${seconds.toFixed(2)} s.`;
  element("mapped").hidden = element("about-map").hidden = !found.map;
  element("result").hidden = false;
  draw(found);
  element("show").onchange = () => draw(found);
}

function cell(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}

/** The picture, and over it the map if it is asked for. */
function draw({ bitmap, orientation, map, decision }) {
  const { width, height } = bitmap, [across, down] = orientation > 4 ? [height, width] : [width, height];
  const canvas = element("picture"), longest = Math.max(width, height);
  const scale = Math.min(1000, Math.max(480, longest)) / longest;
  canvas.width = Math.max(1, Math.round(across * scale));
  canvas.height = Math.max(1, Math.round(down * scale));
  const context = canvas.getContext("2d");
  context.scale(canvas.width / across, canvas.height / down);
  context.save();
  context.transform(...turning(orientation, width, height));
  context.drawImage(bitmap, 0, 0);
  context.restore();
  const mapped = Boolean(map) && element("show").checked;
  if (mapped) context.drawImage(colour(map), ...placeOfPicture(down, across, map.dims), 0, 0, across, down);
  canvas.setAttribute("aria-label", `The picture that was judged${mapped ? ", with the map" : ""}: ${decision}.`);
}

/** A map of evidence as a small picture: the more, the less transparent. */
function colour({ data, dims: [, rows, columns] }) {
  const small = new OffscreenCanvas(columns, rows), context = small.getContext("2d");
  const image = context.createImageData(columns, rows), most = Math.max(...data, 1e-12);
  data.forEach((value, i) => image.data.set([255, 112, 0, Math.round((190 * value) / most)], 4 * i));
  context.putImageData(image, 0, 0);
  return small;
}

/** Left, top, width and height of the picture in the map, which also covers what was padded. */
function placeOfPicture(pictureHeight, pictureWidth, [, rows, columns]) {
  if (FACTS.resize !== "pad") return [0, 0, columns, rows];
  const [top, left, height, width] = findPaddedArea(pictureHeight, pictureWidth, FACTS.size);
  const down = rows / FACTS.size[0], across = columns / FACTS.size[1];
  return [left * across, top * down, width * across, height * down];
}

function fail(error) {
  element("status").textContent = "";
  element("error").textContent = error instanceof Refused ? error.message : `It cannot run in this browser (${error.message}): try a newer one.`;
  element("error").hidden = false;
}

async function take(file) {
  if (!file) return;
  const number = ++shown;
  element("error").hidden = element("result").hidden = true;
  element("status").textContent = `${file.name} is being read.`;
  await wait();
  try {
    const found = await judge(file);
    if (number !== shown) return; // another was asked for meanwhile
    show(file, found);
    element("status").textContent = `${file.name} was judged.`;
  } catch (error) {
    if (number === shown) fail(error);
  }
}

const ready = open();
ready.catch(fail);
for (const id of ["choose", "camera"]) {
  element(id).addEventListener("change", event => {
    take(event.target.files[0]);
    event.target.value = ""; // so that the same file can be chosen again
  });
}
const zone = element("drop");
for (const type of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(type, event => {
    event.preventDefault();
    zone.classList.toggle("over", type === "dragenter" || type === "dragover");
    if (type === "drop") take(event.dataTransfer.files[0]);
  });
}
