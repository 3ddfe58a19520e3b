/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A program without any library that somebody could stand in for: HOST PORT */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int count, char **arguments)
{
	struct sockaddr_storage to = {}, peer, own;
	struct sockaddr_in *four = (void *)&to;
	struct sockaddr_in6 *six = (void *)&to;
	socklen_t len = sizeof(peer), own_len = sizeof(own);
	char greeting[6] = "", shown[2][INET6_ADDRSTRLEN];
	int stream;

	if (count != 3)
		return 2;
	if (inet_pton(AF_INET, arguments[1], &four->sin_addr) == 1)
		to.ss_family = AF_INET;
	else if (inet_pton(AF_INET6, arguments[1], &six->sin6_addr) == 1)
		to.ss_family = AF_INET6;
	four->sin_port = htons(atoi(arguments[2]));
	stream = socket(to.ss_family, SOCK_STREAM, 0);
	if (connect(stream, (void *)&to, to.ss_family == AF_INET ? sizeof(*four) : sizeof(*six)) ||
	    recv(stream, greeting, 5, MSG_WAITALL) != 5) {
		perror("static-client");
		return 1;
	}
	getpeername(stream, (void *)&peer, &len);
	getsockname(stream, (void *)&own, &own_len);
	inet_ntop(peer.ss_family, peer.ss_family == AF_INET ? (void *)&((struct sockaddr_in *)&peer)->sin_addr :
							      (void *)&((struct sockaddr_in6 *)&peer)->sin6_addr,
		  shown[0], sizeof(shown[0]));
	inet_ntop(own.ss_family, own.ss_family == AF_INET ? (void *)&((struct sockaddr_in *)&own)->sin_addr :
							    (void *)&((struct sockaddr_in6 *)&own)->sin6_addr,
		  shown[1], sizeof(shown[1]));
	printf("%s %s %d %s\n", greeting, shown[0], ntohs(((struct sockaddr_in *)&peer)->sin_port), shown[1]);
	return 0;
}
