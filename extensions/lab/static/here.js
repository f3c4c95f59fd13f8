// How a terminal runs the command. `fednb kernels install` writes here which Python has it.
export const FEDNB = "fednb";
