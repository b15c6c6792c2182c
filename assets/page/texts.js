// What the page says, in the language of the person: the one that was chosen here, or the browser's.

import { speaker } from "./sentences.js";
import { server } from "./server.js";

const KEPT = "stillmotion.language";
const listeners = new Set();
let words = { en: {}, zh: {} };
let speakers = {}; // of what the server says
let current = chosen();

export async function loadTexts() {
  words = await server.get("page/texts.json");
  speakers = Object.fromEntries(["en", "zh"].map((one) => [one, speaker(words.server[one])]));
  document.documentElement.lang = current === "zh" ? "zh-CN" : "en";
}

export function chosen() {
  const kept = localStorage.getItem(KEPT);
  if (kept === "en" || kept === "zh") return kept;
  const wanted = (navigator.languages ?? [navigator.language]).map((one) => one.slice(0, 2).toLowerCase());
  return wanted.find((one) => one === "en" || one === "zh") ?? "en";
}

export const language = () => current;

export function setLanguage(wanted) {
  current = wanted;
  localStorage.setItem(KEPT, wanted);
  document.documentElement.lang = wanted === "zh" ? "zh-CN" : "en";
  listeners.forEach((fn) => fn(wanted));
}

export function onLanguage(fn) {
  listeners.add(fn);
  return () => listeners.delete(fn);
}

export function say(key, values = {}) {
  const text = words[current]?.[key] ?? words.en[key];
  if (text === undefined) {
    console.error(`no text for ${key}`);
    return key;
  }
  return text.replace(/\{(\w+)\}/g, (all, name) => (name in values ? String(values[name]) : all));
}

export const sentence = (text) => speakers[current].sentence(text);
export const sayError = (error, titleOf) => speakers[current].error(error, titleOf);

export const sayOf = (titles) => titles?.[current] ?? titles?.en ?? "";

const count = (value, digits = 0) => new Intl.NumberFormat(current, { maximumFractionDigits: digits }).format(value);

export const seconds = (value) => {
  if (value === null || value === undefined) return "";
  const { text, unit, digits } = words.durations.find((one) => one.below === null || value < one.below);
  return say(text, { count: count(Math.max(1, value / unit), digits) });
};

export const bytes = (value) => {
  if (value === null || value === undefined) return "";
  const step = ["B", "KB", "MB", "GB", "TB"].findIndex((_, index) => value < 1000 ** (index + 1));
  return `${count(value / 1000 ** step, step > 1 ? 1 : 0)} ${["B", "KB", "MB", "GB", "TB"][step]}`;
};
