/** Colours of the terminal, as the page's. */
import type { ITheme } from "@xterm/xterm";

const DARK: ITheme = {
  background: "#10141a",
  foreground: "#d7dde5",
  cursor: "#7cc4ff",
  selectionBackground: "#2c4a66",
};
const LIGHT: ITheme = {
  background: "#ffffff",
  foreground: "#1d2733",
  cursor: "#0b62a8",
  selectionBackground: "#bcdcf5",
  black: "#1d2733",
  green: "#1a7f37",
  yellow: "#8a6100",
  blue: "#0b62a8",
  magenta: "#8a3ffc",
  cyan: "#007d79",
  white: "#5b6673",
  brightBlack: "#5b6673",
  brightGreen: "#1a7f37",
  brightYellow: "#8a6100",
  brightBlue: "#0b62a8",
  brightMagenta: "#8a3ffc",
  brightCyan: "#007d79",
  brightWhite: "#1d2733",
};

/** The terminal's colours. */
export function terminalTheme(dark: boolean): ITheme {
  return dark ? DARK : LIGHT;
}
