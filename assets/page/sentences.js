// The server's own sentences in the language of the page, as `ui/sentences.py` does it: by the English one with gaps. A gap {name} takes any
// text, which is put into the language too if it is known; {name!r} one in quotes.

const GAP = /\{(\w+)(!r)?\}/g;
const QUOTED = `'(?:[^'\\\\]|\\\\.)*'|"(?:[^"\\\\]|\\\\.)*"`;
const plain = (text) => text.replace(/[.*+?^${}()|[\]\\/-]/g, "\\$&");

// Of one language; of nothing for English, which the server speaks.
export function speaker({ codes = {}, sentences = {}, stop = "." } = {}) {
  const kept = new Map();
  let patterns = null;

  // Those whose beginning is known come first, then those that say most.
  const order = (text) => (text.startsWith("{") ? 0 : 10000) + text.replace(GAP, "").length;
  const compiled = () => (patterns ??= Object.keys(sentences).sort((one, other) => order(other) - order(one)).map((one) => [pattern(one), sentences[one]]));

  function known(text) {
    if (!kept.has(text)) kept.set(text, found(text));
    return kept.get(text);
  }

  function found(text) {
    for (const [pattern, target] of compiled()) {
      const match = pattern.exec(text);
      if (match) return target.replace(GAP, (_, name) => (match.groups[name] ? sentence(match.groups[name]) : ""));
    }
    return null;
  }

  const sentence = (text) => known(text) ?? text;
  const ended = (text) => (text.endsWith(stop) ? text : text + stop);

  // What is wrong and what to do; of a sentence that is not known what its code means, and the sentence.
  // `titleOf`: what a field of the form is called there.
  function error({ code, message = "", hint = "", more = {} }, titleOf = (name) => name) {
    if (more.fields) return Object.entries(more.fields).map(([name, text]) => `${titleOf(name)}: ${ended(sentence(text))}`).join(" ");
    const parts = [message, hint].filter(Boolean);
    const meaning = message && known(message) !== null ? "" : codes[code] ?? "";
    return (meaning ? [meaning, ...parts] : parts.map(sentence)).join(" ");
  }

  return { sentence, error };
}

function pattern(sentence) {
  let end = 0;
  let source = "";
  for (const gap of sentence.matchAll(GAP)) {
    source += `${plain(sentence.slice(end, gap.index))}(?<${gap[1]}>${gap[2] ? QUOTED : "[\\s\\S]*?"})`;
    end = gap.index + gap[0].length;
  }
  return new RegExp(`^${source}${plain(sentence.slice(end))}$`);
}
