/** How a line of a build log begins that the CLI repeats at the end of a publish. */
export const WARNING = 'warning: ';
