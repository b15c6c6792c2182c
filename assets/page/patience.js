// For whoever asks the server again and again: after an error the next time is later each time, and the same error is said once.

const FIRST = 5000;
const MOST = 60000;

export function patience(page) {
  let failures = 0;
  let said = "";
  return {
    answered() {
      failures = 0;
      said = "";
    },
    // Gives the milliseconds to wait. A lost connection is said elsewhere, and looked after there.
    failed(error) {
      if (error.code === "connection_lost") return FIRST;
      const text = `${error.code} ${error.message}`;
      if (text !== said) page.fail(error);
      said = text;
      failures += 1;
      return Math.min(MOST, FIRST * 2 ** (failures - 1));
    },
  };
}
