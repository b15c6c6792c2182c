// What the rows of the queue share: addresses, and the small picture of a job.

import { isShown, stillsOf, suffix } from "./job.js";

export const pathOf = (job) => `api/jobs/${encodeURIComponent(job.id)}`;

// While a job runs, how it looks by now; else its still, or what else is a picture.
function pictureOf(job) {
  if (job.status === "running" && job.progress?.preview && !stillsOf(job).length) return job.progress.preview;
  const picture = stillsOf(job)[0] ?? job.outputs.find((one) => suffix(one) === "png") ?? job.outputs.find((one) => isShown(one) && suffix(one) === "webp");
  return picture ? `${picture.url}&preview=webp;70&size=160` : null;
}

export function thumbnail(page) {
  const { el } = page;
  const image = el("img", { alt: "", decoding: "async", hidden: true, on: { error: () => (image.hidden = true), load: () => (image.hidden = false) } });
  const element = el("div", { class: "sm-queue-picture" }, image);
  let shown = null;
  return {
    element,
    show(job) {
      const wanted = pictureOf(job);
      if (wanted === shown) return;
      shown = wanted;
      if (wanted) image.src = wanted;
      else (image.removeAttribute("src"), (image.hidden = true));
    },
  };
}
