// The small picture of a job in the rows of the queue.

import { posterOf, stillsOf } from "./jobs_view.js";

// While a job runs, how it looks by now; else its still, or what else is a picture.
function pictureOf(job) {
  if (job.status === "running" && job.progress?.preview && !stillsOf(job).length) return job.progress.preview;
  return posterOf(job, 160);
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
