// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Clones} from "@openzeppelin/contracts/proxy/Clones.sol";
import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {IReceiver} from "../../../contracts/interfaces/IReceiver.sol";
import {Open} from "../../../contracts/types/Messages.sol";
import {Quote} from "../../../contracts/types/Quotes.sol";
import {TillFixture} from "../support/TillFixture.sol";

/// @title What a receiver is, and whom it obeys
contract ReceiverTest is TillFixture {
    bytes32 private constant _QUOTE = keccak256(
        "Quote(uint32 nodeId,bytes32 offerHash,bytes32 requestHash,address key,uint128 amount,uint48 payBefore,"
        "uint48 expiresAt,bytes32 salt)"
    );

    function test_ReceiverOpensNoOtherSession() public {
        till.pay(quote, _payment(buyer, "nonce"));
        vm.warp(_end());
        Open[] memory ended = new Open[](1);
        ended[0] = _sessionTerms();
        escrow.expire(ended);
        Open memory other = _sessionTerms();
        (other.salt, other.openBefore, other.expiresAt) = (0, uint48(_end() + 60), uint48(_end() + 60));
        bytes memory byKey = _signOpen(key, other);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_KeyExpired.selector, _end(), 0));
        escrow.openOneSession(other, byKey);
        bytes memory byPayer = _signOpen(buyer, other);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongSigner.selector, buyer.addr, receiver));
        escrow.openOneSession(other, byPayer);
    }

    function test_ReceiverObeysItsTillOnly() public {
        till.pay(quote, _payment(buyer, "nonce"));
        address[2] memory both = [receiver, address(till.RECEIVER())];
        bytes memory reason =
            abi.encodeWithSelector(IReceiver.Receiver_NotTill.selector, buyer.addr, address(till));
        for (uint256 i = 0; i < both.length; ++i) {
            vm.startPrank(buyer.addr);
            vm.expectRevert(reason);
            IReceiver(both[i]).withdraw(stranger);
            vm.expectRevert(reason);
            IReceiver(both[i]).takeAwards(stranger);
            vm.expectRevert(reason);
            IReceiver(both[i]).giveBack(stranger, 1);
            vm.expectRevert(reason);
            IReceiver(both[i]).open(_sessionTerms());
            vm.stopPrank();
        }
    }

    function test_ReceiverTakesNoEther() public {
        till.pay(quote, _payment(buyer, "nonce"));
        vm.deal(address(this), 2);
        (bool isTaken,) = receiver.call{value: 1}("");
        assertFalse(isTaken);
        (isTaken,) = receiver.call{value: 1}(abi.encodeCall(IReceiver.TILL, ()));
        assertFalse(isTaken);
    }

    function testFuzz_ReceiverIsTheCloneWhoseSaltIsTheQuote(Quote memory any) public view {
        bytes32 salt = keccak256(abi.encode(_QUOTE, any));
        address predicted =
            Clones.predictDeterministicAddress(address(till.RECEIVER()), salt, address(till));
        assertEq(till.receiverOf(any), predicted);
        Open memory expected = Open({
            buyer: predicted,
            key: any.key,
            nodeId: any.nodeId,
            amount: any.amount,
            openBefore: any.payBefore,
            expiresAt: any.expiresAt,
            salt: salt
        });
        assertEq(till.sessionIdOf(any), escrow.sessionIdOf(expected));
    }

    /// @dev Whatever a quote says is part of its address, and of its session's id.
    function test_ReceiverFollowsFromEveryFieldOfItsQuote() public {
        address[9] memory seen;
        seen[0] = receiver;
        ++quote.nodeId;
        seen[1] = till.receiverOf(quote);
        quote.offerHash = 0;
        seen[2] = till.receiverOf(quote);
        quote.requestHash = 0;
        seen[3] = till.receiverOf(quote);
        quote.key = stranger;
        seen[4] = till.receiverOf(quote);
        ++quote.amount;
        seen[5] = till.receiverOf(quote);
        ++quote.payBefore;
        seen[6] = till.receiverOf(quote);
        ++quote.expiresAt;
        seen[7] = till.receiverOf(quote);
        quote.salt = 0;
        seen[8] = till.receiverOf(quote);
        for (uint256 i = 0; i < seen.length; ++i) {
            for (uint256 j = 0; j < i; ++j) {
                assertNotEq(seen[i], seen[j]);
            }
        }
    }

    function test_TillNamesItsEscrowTokenAndReceiver() public view {
        assertEq(address(till.ESCROW()), address(escrow));
        assertEq(address(till.TOKEN()), address(token));
        assertEq(till.RECEIVER().TILL(), address(till));
        assertEq(till.RECOVERY_SECONDS(), 1 days);
    }
}
