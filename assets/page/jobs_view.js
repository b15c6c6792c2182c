// What every panel knows of jobs: their pictures and films, how far one is, and the same job with something changed.

const VIDEOS = ["mp4", "webm"];

export const isOpen = (job) => ["queued", "running"].includes(job?.status);
export const titleOf = (page, job) => job.title || page.say("job.untitled");
export const pathOf = (job) => `api/jobs/${encodeURIComponent(job.id)}`;

// Files

export const suffix = (output) => output.filename.split(".").pop().toLowerCase();
export const isShown = (output) => output.type === "output" && output.kind !== "beside";
export const isVideo = (output) => VIDEOS.includes(suffix(output));
export const stillsOf = (job) => job.outputs.filter((one) => isShown(one) && suffix(one) === "png");
export const filmOf = (job) => job.outputs.find((one) => isShown(one) && isVideo(one)) ?? job.outputs.find((one) => isShown(one) && ["webp", "gif"].includes(suffix(one)));
export const place = (output) => `${output.subfolder ? `${output.subfolder}/` : ""}${output.filename} [${output.type}]`;

// Of a picture as forms name it, "folder/name [output]"; "" of none.
export function pictureUrl({ server }, image) {
  const [, name, type = "input"] = /^(.*?\.\w+)(?: \[(\w+)\])?$/.exec(image ?? "") ?? [];
  if (!name) return ""; // what says "none" does so in some language
  const cut = name.lastIndexOf("/");
  return server.url(`view?${new URLSearchParams({ filename: name.slice(cut + 1), subfolder: name.slice(0, Math.max(0, cut)), type })}`);
}

// The still, or else the film's first frame; small, and known again by its ETag. A film without either has none.
export function posterOf(job, size) {
  const picture = stillsOf(job)[0] ?? job.outputs.find((one) => suffix(one) === "png") ?? job.outputs.find((one) => isShown(one) && suffix(one) === "webp");
  return picture ? `${picture.url}&preview=webp;70&size=${size}` : null;
}

// For ComfyUI, a shell or a program.
export function elsewhere({ el, say, server }, job) {
  const link = (kind) => el("a", { class: "sm-button sm-quiet", href: server.url(`${pathOf(job)}/export?as=${kind}`), download: "" }, say(`export.${kind}`));
  return el("details", {}, el("summary", {}, say("export.title")), el("div", { class: "sm-row" }, ["comfy", "curl", "python"].map(link)));
}

// How far it is

// Which of its stages. Decoding and encoding belong to what was made before.
export function stageOf(job, furthest = 0) {
  const now = job.progress;
  if (!now) return furthest;
  const { stages } = job;
  const isPastStill = stages[0] !== "still" || (stages.includes("motion") ? now.has_moved : now.stage === "encoding");
  const name = now.stage === "motion" ? "motion" : ["decoding", "encoding"].includes(now.stage) && isPastStill ? "file" : stages[0];
  return Math.max(furthest, stages.indexOf(name));
}

// 0 to 0.99: of the time, if that is known; else of the stages.
export function shareOf(job, furthest = 0) {
  const now = job.progress;
  if (job.status !== "running" || !now) return 0;
  if (job.remaining_seconds !== null) return Math.min(0.99, now.seconds / (now.seconds + job.remaining_seconds || 1));
  return isBefore(now) || !now.total ? 0 : Math.min(0.99, (stageOf(job, furthest) + now.step / now.total) / job.stages.length);
}

// Nothing of it is made yet: a machine is waited for, or models are loaded.
const isBefore = (now) => ["waking", "loading"].includes(now.stage);

export const stageWord = (page, job, stage) => page.say(`stage.${job.stages[stage]}`);

// The number of steps, or what comes before them.
export function stepsWord(page, job) {
  const now = job.progress;
  return !now ? "" : isBefore(now) ? page.say(`stage.${now.stage}`) : now.total ? `${now.step}/${now.total}` : "";
}

export function leftWord(page, job, unknown = "") {
  const left = job.remaining_seconds;
  if (left !== null && job.progress && isBefore(job.progress)) return page.say("time.then", { time: page.seconds(left) });
  return left === null ? unknown : left < 1 ? page.say("time.moment") : page.say("time.left", { time: page.seconds(left) });
}

export const placeWord = (page, place) => (place === 1 ? page.say("queue.next") : page.say("queue.before", { count: place - 1 }));

// The same with something changed. A form that was drawn from a workflow calls its fields by input and node: motion_bucket_id_16.

export const open = (page, job) => page.server.send("POST", "api/open", { job: job.id });
const fields = (opened, ...names) => Object.entries(opened.values).filter(([name]) => names.some((one) => new RegExp(`^${one}(_|$)`).test(name)));
const lowered = (found, least, fit) => found.map(([name, value]) => [name, Math.max(least, fit(Number(value)))]).filter(([name, value], index) => value < Number(found[index][1]));

// Each tells what changes of what was opened; null if the job has nothing of the kind.
const CHANGES = {
  more: (opened) => motion(opened, 1.6),
  less: (opened) => motion(opened, 0.6),
  keep: (opened) => ("motion_seed" in opened.values ? { motion_seed: "random" } : null),
  // Half the frames and 0.7 of each side: about a quarter of the memory.
  smaller: (opened) => some([
    ...lowered(fields(opened, "frames", "video_frames"), 2, (frames) => Math.round(frames / 2)),
    ...lowered(fields(opened, "width", "height", "still_width", "still_height"), 64, (side) => Math.round((side * 0.7) / 64) * 64),
  ]),
};

// Those of a film that there are, with their names.
export const changesOf = (opened) => ["more", "less", "keep"].map((name) => [name, CHANGES[name](opened)]).filter(([, change]) => change);

const some = (changes) => (changes.length ? Object.fromEntries(changes) : null);
const motion = (opened, factor) => some(fields(opened, "motion_bucket_id").map(([name, value]) => [name, Math.round(Math.max(1, Math.min(255, value * factor)))]));

// How much motion there was and will be, if that is what changes.
export function motionWord(page, opened, change) {
  const [name, after] = Object.entries(change).find(([name]) => name.startsWith("motion_bucket_id")) ?? [];
  return name ? page.say("motion.changes", { before: opened.values[name], after }) : null;
}

// What a film takes over from the one that it goes on from: how it moves and how it is written; not what is shown, nor what was drawn by lot.
const ITS_OWN = /^(prompt|negative_prompt|checkpoint|still_\w+|steps|guidance|sampler|schedule|seed|vae|loras|image|film|motion_seed)$/;

export async function extend(page, job, film) {
  const { template, values } = await open(page, job);
  const kept = template ? Object.entries(values).filter(([name]) => !ITS_OWN.test(name)) : [];
  page.use("extend_film", { ...Object.fromEntries(kept), film: place(film) });
  page.openJob(job.id); // it stands beside the form
  page.toast(page.say("extend.filled"));
}

// Films of stills that were chosen, of the stills' own size.
export async function animateStills(page, job, stills) {
  const { width, height } = await open(page, job).then((opened) => opened.values, () => ({})); // without, as the template has it
  const size = width && height ? { width, height } : {};
  const made = [];
  for (const still of stills) made.push(await page.server.send("POST", "api/films", { template: "still_to_film", image: place(still), title: job.title, ...size }));
  return made;
}

export function makeChanged(page, job, { template, values, workflow }, change) {
  const form = template ? { template, ...values } : { workflow };
  return page.server.send("POST", "api/films", { ...form, ...change, title: job.title });
}

// Where there is nothing that could be smaller, the settings go into the form.
export async function makeSmaller(page, job) {
  const opened = await open(page, job);
  const change = CHANGES.smaller(opened);
  return change ? makeChanged(page, job, opened, change) : (page.remake(job.id), null);
}
